"""Calibration of INT8: from imagery to a scale for every tensor and a precision for every layer."""
