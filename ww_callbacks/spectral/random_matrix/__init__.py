"""Random-matrix theory: the laws of random spectra, and what of a matrix lies beyond them."""
