"""From a run to files that others use."""
