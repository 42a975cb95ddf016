"""The trainer as an image: Dockerfile, what is installed in it, and how that is chosen."""
