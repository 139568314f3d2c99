"""Written by ``python -m benchmarks.early_stopping --write``; do not edit. ``judgement.py`` says what they mean."""

from ww_callbacks.spectral.detectors.signals.judgement import Coefficients

COEFFICIENTS = Coefficients(
    intercept=-1.689,
    weights={
        "slope_z": 0.3285,
        "slope": 1.146,
        "saw": -0.2086,
        "jump": -0.4356,
        "fall": -0.03126,
        "log_loss": 0.292,
        "log_error": -0.71,
        "distance_rise": 4.251,
        "norm_rise": -2.067,
        "norm_exponent": 4.722,
        "output_exponent": -1.904,
        "hidden_exponent": -1.609,
        "log_epochs": 0.2753,
        "output_update": 0.3302,
        "hidden_update": -0.2398,
        "decay": 1.131,
    },
    typical={
        "slope_z": 0.1184,
        "slope": 0.008009,
        "saw": 0.08632,
        "jump": 0.07048,
        "fall": 0.9268,
        "log_loss": -1.77,
        "log_error": -1.862,
        "distance_rise": 0.09759,
        "norm_rise": 0.1298,
        "norm_exponent": 0.2272,
        "output_exponent": 0.5157,
        "hidden_exponent": 0.5111,
        "log_epochs": 3.043,
        "output_update": -4.072,
        "hidden_update": -4.07,
        "decay": -0.3475,
    },
)

CALIBRATION = (-0.112, 0.504)
"""a and b of the probability."""

CAUTIOUS = 0.507
"""Score above which an epoch counts towards an alarm: 4.1% false alarms in families that were left out."""

EAGER = -0.359
"""The same for 12.1% false alarms."""

FOUND = {"short": 0.028, "long": 0.35}
"""Share of the overtrained runs of left-out families in which the cautious judgement raised an alarm."""

HIDDEN = {"short": 0.21, "long": 0.36}
"""Share of the runs without an alarm that were overtrained all the same. Short runs have 3 to 8 epochs."""
