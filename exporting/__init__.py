"""A model as programs for other projects: what they compute, and as files of torch.export and ONNX.

A project that loads such a file needs nothing of this repository.
"""
