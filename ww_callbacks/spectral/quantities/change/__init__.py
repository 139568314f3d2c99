"""Change over training: distance from the initial weights, the update since the last snapshot, loss of scale."""
