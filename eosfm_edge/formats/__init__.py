"""The file formats, as models that check what they read; no torch."""
