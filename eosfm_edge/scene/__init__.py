"""Scenes: rasters as Earth-observation people have them, read window by window."""
