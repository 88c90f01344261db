"""Between pixels and latents: the frame autoencoder and its parts."""
