"""Vertex AI, Cloud TPU and Cloud Build: requests as pure functions, and each service behind one face."""
