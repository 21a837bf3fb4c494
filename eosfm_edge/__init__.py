"""Compress, export and run EoS-FM ensembles of remote-sensing specialists."""

__version__ = "0.1.0"
