"""Each view as plotly's own description of a figure: plain dictionaries and arrays, made without importing plotly."""
