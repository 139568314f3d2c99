"""Detectors to alerts to a verdict: what is reported, how often, and which action follows."""
