"""From an ensemble to a bundle."""
