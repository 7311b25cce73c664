"""Fits compared: read and checked, with intervals, targets and verdicts of numbers alone."""
