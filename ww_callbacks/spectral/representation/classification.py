"""Classification dimension: how many principal components of the final features the classes need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassificationDimension:
    """The classification dimension and the curve it is read from.

    Attributes:
        dimension: the least k that keeps ``share`` of the accuracy.
        features: the features' dimension d.
        accuracy: accuracy with all features.
        curve: accuracy with the top k principal components, k = 0 … K, where K is the last k computed.
    """

    dimension: int
    features: int
    accuracy: float
    curve: np.ndarray


def classification_dimension(
    features: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, labels: np.ndarray, share: float = 0.95
) -> ClassificationDimension:
    r"""Least k such that the head on the top-k principal components keeps ``share`` of the accuracy.

    The features are replaced by :math:`\bar f + P_k (f - \bar f)`, P_k the projector on the k leading eigenvectors of
    their covariance, and pass through the linear head: argmax of :math:`W f + b`.

    Args:
        features: final features f, samples × d.
        weight: the head's W, classes × d.
        bias: the head's b, classes, or None.
        labels: class of each sample, 0 … classes − 1.
        share: share of the accuracy to keep.

    Returns:
        The dimension with its curve. Accuracy is not monotone in k: the least k that reaches the share is taken.

    Raises:
        ValueError: if the shapes do not fit or ``share`` is not in (0, 1].

    Source: Feng et al. (2022), section 5; centring is ours, so that k counts directions in which inputs differ.
    """
    features = np.asarray(features, dtype=np.float64)
    weight = np.asarray(weight, dtype=np.float64)
    labels = np.asarray(labels)
    if features.ndim != 2 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"Expected features (samples × d) and weight (classes × d), but got {features.shape} and {weight.shape}."
        )
    if labels.shape != features.shape[:1]:
        raise ValueError(f"Expected one label a sample ({features.shape[0]}), but got the shape {labels.shape}.")
    if not 0 < share <= 1:
        raise ValueError(f"Expected `share` in (0, 1], but got {share}.")
    mean = features.mean(axis=0)
    centred = features - mean
    directions = np.linalg.svd(centred, full_matrices=False)[2]
    logits = np.tile(weight @ mean + (0.0 if bias is None else np.asarray(bias, dtype=np.float64)), (len(labels), 1))
    accuracy = float(np.mean(np.argmax(logits + centred @ weight.T, axis=1) == labels))
    curve = [float(np.mean(np.argmax(logits, axis=1) == labels))]
    scores = centred @ directions.T
    heads = directions @ weight.T
    for k in range(len(directions)):
        logits = logits + np.outer(scores[:, k], heads[k])
        curve.append(float(np.mean(np.argmax(logits, axis=1) == labels)))
    reached = np.flatnonzero(np.asarray(curve) >= share * accuracy)
    # Rounding may change the argmax of a tie with all components: d itself always reaches the share.
    dimension = int(reached[0]) if reached.size else features.shape[1]
    return ClassificationDimension(dimension, features.shape[1], accuracy, np.asarray(curve))
