"""The verbs: each reads what the one before wrote, and writes all of its output or nothing.

Stages are imported when a verb is called: :mod:`eosfm_edge` stays light.
"""
