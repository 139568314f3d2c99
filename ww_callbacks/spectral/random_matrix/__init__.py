"""Random-matrix theory: the laws of random spectra, and what is beyond them in a matrix."""
