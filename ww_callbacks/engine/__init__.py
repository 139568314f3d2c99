"""Weights to rows: detects which layers changed, measures them, and stores the initial weights W_0."""
