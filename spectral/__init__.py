"""Spectra of weights: the mathematics and the judgement of time series; arrays in, numbers out."""

__ww_callbacks__ = True
