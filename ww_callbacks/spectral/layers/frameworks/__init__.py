"""Live models to layers: torch modules and Keras variables."""
