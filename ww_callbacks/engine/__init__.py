"""Weights to rows: which layers changed, what is measured of them, and the weights they are compared with."""
