"""The device side: the target that this machine is, and what a bundle brings to a board."""
