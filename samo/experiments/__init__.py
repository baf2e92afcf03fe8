"""Runs: their folders, how they are trained and how they are judged."""
