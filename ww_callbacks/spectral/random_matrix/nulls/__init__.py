"""Random nulls: values of quantities on pure noise, by shuffling, simulation or a stored table."""
