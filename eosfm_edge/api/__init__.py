"""The Python API: verbs, their options, and what ``open`` gives. :mod:`eosfm_edge` names it all."""
