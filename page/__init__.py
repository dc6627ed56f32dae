"""The page to play with a model in: what is written into it, and its HTML, CSS and JavaScript.

explore.py asks for it; a new card of the page begins here.
"""
