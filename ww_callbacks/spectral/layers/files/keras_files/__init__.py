"""Reads Keras files without Keras: their zip and HDF5 contents, and the layers in them."""
