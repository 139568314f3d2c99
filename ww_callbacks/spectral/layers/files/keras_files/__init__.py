"""Keras files without Keras: what their zip and HDF5 parts hold, and which layers that is."""
