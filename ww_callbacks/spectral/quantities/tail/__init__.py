"""The tail of the eigenvalues: power laws and other heavy tails, where the tail starts, its singular vectors."""
