"""Shared code of the tests: scenes, weights, ensembles, bundles, programs and the command."""
