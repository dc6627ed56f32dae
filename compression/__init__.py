"""Images to archives and back without loss: the code, its file, the model of the low bits.

How small and fast that is, beside general codecs, is measured in benchmarks/archives.py.
"""
