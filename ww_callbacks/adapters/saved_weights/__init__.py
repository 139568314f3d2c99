"""The weights of the best epoch and their average: kept in files, and put back into the model at the end."""
