"""Trained models over HTTP: ``samo serve``."""
