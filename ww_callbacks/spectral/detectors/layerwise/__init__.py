"""Detectors that judge layer by layer, each in a file of its own."""
