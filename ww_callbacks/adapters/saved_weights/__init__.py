"""The weights of the best epoch and their average: saved to files, and restored at the end."""
