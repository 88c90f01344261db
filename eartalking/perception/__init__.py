"""What reads a picture: face detection, the frame encoder, the face reader, identity."""
