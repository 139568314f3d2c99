"""TensorBoard's tab SPECTRA: the views on every record below the log folder, while training writes."""
