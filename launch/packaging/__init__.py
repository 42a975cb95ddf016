"""The image: what of the working tree is sent, and the build's own last step."""
