"""How good a model is: bounds on its likelihood, its samples, its size, and the report on them.

It is handed a model and images, and imports neither the training nor a run.
"""
