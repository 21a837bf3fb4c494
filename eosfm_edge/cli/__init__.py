"""The ``eosfm-edge`` command: one file per verb, options to functions and results to text."""
