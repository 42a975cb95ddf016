"""Starts the trainer somewhere: as several workers on this machine, or as a job in the cloud.

`python -m launch` is the way in. It takes of `trainer` only what says what a run is (`trainer.config*`) and how one
ends (`trainer.errors`) and what it prints (`trainer.terminal`), and never imports TensorFlow: what needs it is started
as a process.
"""
