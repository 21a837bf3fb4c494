"""Specialists, and the rules that make an ensemble of them: the reference's semantics."""
