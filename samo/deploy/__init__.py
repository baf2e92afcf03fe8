"""From a run to something that people use: export, packages, bulk work."""
