"""Linear algebra: matrices to singular values, on several workers, on NumPy and torch arrays."""
