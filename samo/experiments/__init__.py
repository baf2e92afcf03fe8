"""Many trainings and what they say together: grids, cross-validation, learning curves, comparisons, selections."""
