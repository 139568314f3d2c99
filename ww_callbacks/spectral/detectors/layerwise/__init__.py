"""Detectors of single layers, one per file."""
