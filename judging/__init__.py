"""How good a model is: bounds on its likelihood, its samples, and the report on both.

It is handed a model and images, and imports neither the training nor a run.
"""
