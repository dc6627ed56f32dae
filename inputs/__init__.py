"""What comes in: options, tensors and files are as expected, or one line says what is wrong.

Nothing here knows of models, data sets or runs, and nothing of theirs is imported.
"""
