"""What a person looks at: figures, pictures of a model and of its training, a line per epoch.

A new picture goes here; who shows it (a run, evaluate.py, sample.py) only asks for it.
"""
