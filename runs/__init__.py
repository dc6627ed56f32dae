"""Runs that are not lost: a run's folder, its last checkpoint, its logs, its end by any cause.

Nothing here knows what is trained; the pictures of a training are in pictures/.
"""
