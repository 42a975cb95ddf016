"""What a trained model is published as: a SavedModel, a Hub module of its backbone, TFLite files.

publish.py      whether it is good enough, and all of it
saved_model.py  the SavedModels; labels.py: the name of their labels' file
fresh_process.py, fresh_check.py    the parity gate: a process that loads what was saved and answers
tflite.py       the TFLite files; tflite_conversion.py, tflite_classifier.py: makes one, and asks it
"""
