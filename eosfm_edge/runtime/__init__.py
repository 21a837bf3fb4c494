"""Running a bundle over scenes. Nothing here needs torch."""
