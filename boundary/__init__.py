"""What comes from outside, options, tensors, files and checkpoints, and is refused in one line.

Nothing here knows of models, data sets or runs, and nothing of theirs is imported.
"""
