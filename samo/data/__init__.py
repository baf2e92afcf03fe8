"""Manifests, splits, batches and the order in which rows are seen."""
