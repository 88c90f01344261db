"""What a motion is: its vector, the face units, head space, the code; and how controls are applied to it."""
