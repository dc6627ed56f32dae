"""What a person looks at: figures of images and latents, pictures of a model and of its training.

A new picture goes here; who shows it (a run, evaluate.py, sample.py) only asks for it.
"""
