"""Written by ``python -m benchmarks.early_stopping --write``; do not edit. ``judgement.py`` says what they mean."""

from ww_callbacks.spectral.detectors.judgement import Coefficients

COEFFICIENTS = Coefficients(
    intercept=-1.394,
    weights={
        "slope_z": 0.2352,
        "slope": 2.124,
        "saw": -0.1239,
        "jump": -0.4588,
        "fall": -0.06227,
        "log_loss": -0.02218,
        "log_error": -0.637,
        "distance_rise": 6.005,
        "norm_rise": -2.677,
        "norm_exponent": 5.011,
        "output_exponent": -2.347,
        "hidden_exponent": -1.219,
        "log_epochs": 0.2456,
        "output_update": 0.2535,
        "hidden_update": 0.04682,
        "decay": 1.116,
    },
    typical={
        "slope_z": 0.2162,
        "slope": 0.009422,
        "saw": 0.09209,
        "jump": 0.08117,
        "fall": 0.9318,
        "log_loss": -1.777,
        "log_error": -1.844,
        "distance_rise": 0.08462,
        "norm_rise": 0.1219,
        "norm_exponent": 0.227,
        "output_exponent": 0.5029,
        "hidden_exponent": 0.5055,
        "log_epochs": 3.022,
        "output_update": -4.107,
        "hidden_update": -4.094,
        "decay": -0.3548,
    },
)

CALIBRATION = (0.108, 0.388)
"""a and b of the probability."""

CAUTIOUS = 0.812
"""Score above which an epoch counts towards an alarm: 2.9% false alarms in families that were left out."""

EAGER = -0.312
"""The same for 11.2% false alarms."""

FOUND = {"cautious": 0.34, "eager": 0.65}
"""Share of the overtrained runs of left-out families in which an alarm was raised."""

HIDDEN = 0.3
"""Share of the runs without an alarm (cautious, left-out families) that were overtrained all the same."""
