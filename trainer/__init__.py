"""Retrains any TensorFlow Hub image module on your own pictures, on whatever accelerator you have.

`python -m trainer.task` is the way in. Importing this package is cheap: it imports nothing.
"""

__version__ = "0.1.0"
