"""Starts the trainer somewhere: as several workers on this machine, or as a job in the cloud.

`python -m launch` is the way in. It takes of `trainer` what says what a run is (`trainer.config*`, `trainer.sweep`) and
what there is to run it on (`trainer.accelerators`), how one ends (`trainer.errors`), and words and ways to print them
(`trainer.wording`, `trainer.terminal`). It never imports TensorFlow: what needs it is started as a process.
"""
