"""Estimates without the full spectrum, each with an error, and bounds on the change of a known spectrum."""
