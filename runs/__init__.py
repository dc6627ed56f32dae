"""Runs that are not lost: folders, checkpoints and what is in one, logs, the end by any cause.

Nothing here knows what is trained, but for names of metrics that TensorBoard shows together.
"""
