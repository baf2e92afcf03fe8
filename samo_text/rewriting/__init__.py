"""Texts rewritten: to train on more of them, and to see what a model makes of them written otherwise."""
