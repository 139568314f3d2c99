"""Detectors to alerts to a verdict: what is reported, how often, and what is done about it."""
