"""Random nulls: what a quantity is on pure noise, by shuffling, simulation or a stored table."""
