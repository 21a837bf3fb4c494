"""Pruning: an ensemble that costs less and says almost the same, without labels."""
