"""Written by ``python -m benchmarks.early_stopping --write``; do not edit. ``judgement.py`` says what they mean."""

from ww_callbacks.spectral.detectors.signals.judgement import Coefficients

COEFFICIENTS = Coefficients(
    intercept=-2.273,
    weights={
        "slope_z": 0.2896,
        "slope_z_rise": -0.196,
        "slope": 1.454,
        "saw": 0.8696,
        "jump": -0.3934,
        "fall": -0.229,
        "log_loss": -0.08602,
        "log_error": -0.7528,
        "distance_rise": 4.771,
        "norm_rise": -2.743,
        "norm_exponent": 5.69,
        "output_exponent": -1.905,
        "hidden_exponent": -1.675,
        "log_epochs": 0.728,
        "displacement": -0.76,
        "output_update": 0.2843,
        "hidden_update": 0.4404,
        "decay": 0.4732,
    },
    typical={
        "slope_z": 0.1355,
        "slope_z_rise": 1.072,
        "slope": 0.005987,
        "saw": 0.08549,
        "jump": 0.07515,
        "fall": 0.9232,
        "log_loss": -1.794,
        "log_error": -1.873,
        "distance_rise": 0.08602,
        "norm_rise": 0.1207,
        "norm_exponent": 0.2226,
        "output_exponent": 0.5056,
        "hidden_exponent": 0.503,
        "log_epochs": 3.064,
        "displacement": -1.321,
        "output_update": -4.133,
        "hidden_update": -4.129,
        "decay": -0.3614,
    },
)

CALIBRATION = (-0.0969, 0.536)
"""a and b of the probability."""

CAUTIOUS = 0.703
"""Score above which an epoch counts towards an alarm: 3.6% false alarms in families that were left out."""

EAGER = -0.168
"""The same for 11.3% false alarms."""

FOUND = {"short": 0.024, "long": 0.52}
"""Share of the overtrained runs of left-out families in which the cautious judgement raised an alarm."""

HIDDEN = {"short": 0.21, "long": 0.27}
"""Share of the runs without an alarm that were overtrained all the same. Short runs have 3 to 8 epochs."""
