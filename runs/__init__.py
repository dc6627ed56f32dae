"""Runs that are not lost: a run's folder, its last checkpoint, its logs, its end by any cause.

Nothing here knows what is trained, but for names of metrics that TensorBoard shows together.
"""
