"""What several stages know of an encoder: its steps, its folded form, statistics, fidelity."""
