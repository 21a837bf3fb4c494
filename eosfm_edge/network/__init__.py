"""An encoder as several stages see it: its steps, its folded form, statistics, fidelity."""
