"""The bundle: what is deployed, a directory that describes itself."""
