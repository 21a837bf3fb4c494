"""Targets: profiles of the devices that bundles are made for."""
