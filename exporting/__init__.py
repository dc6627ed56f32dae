"""A model as programs for others: what they compute, and as files of torch.export and ONNX.

Of these programs nothing here is needed any more where they run.
"""
