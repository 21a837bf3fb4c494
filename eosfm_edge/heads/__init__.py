"""Heads: fitted to labels over a bundle's features, and put into the bundle."""
