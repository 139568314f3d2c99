"""The views as plotly figure specifications: plain dictionaries and arrays, without importing plotly."""
