"""Trained models at work: what `trainer.predict` and `trainer.apply` are made of.

image_files      which files, one after the other, from folders of any size
classifier       an export, a run directory or a Hub module as one function from files to probabilities
classification   batches of files through that function, reading and computing at once
predictions      the most probable classes as lines of text, JSON or CSV
result_printer   where these lines and the progress bar go
grid             pictures with what was predicted, as one PNG
functions        any module with image inputs as something to call
pictures         files as a module's inputs
outputs          what a module gives, as PNG or JSON
"""
