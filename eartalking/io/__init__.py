"""Pictures, sound and video, in and out: the only room that knows the codec package."""
