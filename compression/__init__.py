"""Images to archives and back without loss: the code, its file, the model of the low bits.

Beside it, what it is compared with: general codecs, and the bench.
"""
