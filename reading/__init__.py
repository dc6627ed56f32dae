"""Images from the files that people have, brought to 28x28 pixels, 16 grey levels and classes.

What is read, how it is divided, and which images a command works with, stands here and only here.
"""
