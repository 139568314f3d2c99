"""Spectra that are not computed: estimates with an error, and how far a known spectrum can have moved."""
