r"""Localisation of singular vectors: whether a direction of W is concentrated on few coordinates.

For a unit vector v of n entries:

* entropy S = −Σ v_i² ln v_i² / ln n, from 0 (one coordinate) to 1 (all alike);
* localisation ratio ‖v‖₁/‖v‖_∞, from 1 to n;
* participation ratio ‖v‖₂/‖v‖₄, from 1 to n^{1/4}; its fourth power is the number of coordinates that take part.

A direction of pure noise is distributed like a random unit vector, for which S = [ψ(n/2 + 1) − ψ(3/2)]/ln n on average,
Σv⁴ = 3/(n + 2), and the localisation ratio is about √(2n/π)/√(2 ln n). Training mainly changes the tail, so the vectors
of the bulk, which should still look random, are the reference for those of the tail.

Source: C. H. Martin and M. W. Mahoney, Implicit self-regularization in deep neural networks, JMLR 22 (2021) 165. Their
entropy is that of a histogram of the entries, in a unit that depends on the bins; the one here has no bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.linalg.arrays import as_array


def vector_entropy(vectors: ArrayLike) -> np.ndarray:
    """Entropy S = −Σ v² ln v² / ln n of every column, each normalised to length 1 first.

    Args:
        vectors: n×k, one vector a column, or one vector of n entries.

    Returns:
        k numbers in [0, 1] (one for a single vector); NaN for n = 1 and for a zero vector.

    >>> vector_entropy([1.0, 0.0, 0.0, 0.0]).tolist(), vector_entropy([0.5, 0.5, 0.5, 0.5]).tolist()
    (0.0, 1.0)
    """
    from scipy.special import entr

    weights = np.asarray(vectors, dtype=np.float64) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = weights / np.sum(weights, axis=0)
        return np.asarray(np.sum(entr(shares), axis=0) / np.log(len(shares)))


def localization_ratio(vectors: ArrayLike) -> np.ndarray:
    """‖v‖₁/‖v‖_∞ of every column: 1 on one coordinate, n when all are alike; NaN for a zero vector.

    >>> localization_ratio([[1.0, 1.0], [0.0, 1.0]]).tolist()
    [1.0, 2.0]
    """
    magnitudes = np.abs(np.asarray(vectors, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sum(magnitudes, axis=0) / np.max(magnitudes, axis=0))


def vector_participation_ratio(vectors: ArrayLike) -> np.ndarray:
    """‖v‖₂/‖v‖₄ of every column: 1 on one coordinate, n^{1/4} when all are alike; NaN for a zero vector.

    >>> vector_participation_ratio([[1.0, 1.0], [0.0, 1.0]]).round(4).tolist()
    [1.0, 1.1892]
    """
    squares = np.asarray(vectors, dtype=np.float64) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt(np.sum(squares, axis=0)) / np.sum(squares**2, axis=0) ** 0.25)


def random_vector_entropy(n: int) -> float:
    """Mean entropy S of a random unit vector of n entries, [ψ(n/2 + 1) − ψ(3/2)]/ln n.

    >>> round(random_vector_entropy(1000), 4)
    0.8945
    """
    from scipy.special import digamma

    return float((digamma(n / 2 + 1) - digamma(1.5)) / np.log(n))


@dataclass(frozen=True)
class Localisation:
    """Localisation of the singular vectors of one matrix, by descending eigenvalue.

    Attributes:
        eigenvalues: λ = σ².
        entropy: S of each vector.
        localization_ratio: ‖v‖₁/‖v‖_∞ of each.
        participation_ratio: ‖v‖₂/‖v‖₄ of each.
        length: n, entries of a vector.
    """

    eigenvalues: np.ndarray
    entropy: np.ndarray
    localization_ratio: np.ndarray
    participation_ratio: np.ndarray
    length: int


def localisation(matrix: ArrayLike, side: Literal["inputs", "outputs", "smaller"] = "smaller") -> Localisation:
    """Localisation of W's singular vectors, from the eigenvectors of its smaller Gram product.

    Args:
        matrix: W, rows = outputs, columns = inputs.
        side: where the vectors live: on the columns (``"inputs"``), on the rows (``"outputs"``), or on whichever are
            fewer, which costs least. On the larger side there are still only min(rows, columns) vectors.

    Raises:
        ValueError: for another side, and for what is no finite matrix.
        numpy.linalg.LinAlgError: if LAPACK does not converge.

    >>> localisation(np.diag([3.0, 2.0])).participation_ratio.tolist()
    [1.0, 1.0]
    """
    w = np.asarray(as_array(matrix), dtype=np.float64)
    if w.ndim != 2 or not np.isfinite(w).all():
        what = f"the shape {w.shape}" if w.ndim != 2 else "NaN or infinite elements"
        raise ValueError(f"Expected a finite matrix of two dimensions but got {what}.")
    rows, columns = w.shape
    if side not in ("inputs", "outputs", "smaller"):
        raise ValueError(f"Expected the side 'inputs', 'outputs' or 'smaller' but got {side!r}.")
    tall = w if rows >= columns else w.T
    largest = np.max(np.abs(tall), initial=0.0)
    tall = tall / largest if largest > 0 else tall
    eigenvalues, vectors = np.linalg.eigh(tall.T @ tall)
    eigenvalues, vectors = np.maximum(eigenvalues[::-1], 0.0), vectors[:, ::-1]
    if side == ("outputs" if rows >= columns else "inputs"):
        # the other side's vectors are u = Wv/σ; the three measures normalise, so the division is left out
        vectors = tall @ vectors
    return Localisation(
        eigenvalues=eigenvalues * largest**2,
        entropy=vector_entropy(vectors),
        localization_ratio=localization_ratio(vectors),
        participation_ratio=vector_participation_ratio(vectors),
        length=len(vectors),
    )


def tail_and_bulk(values: ArrayLike, eigenvalues: ArrayLike, tail: int) -> tuple[float, float]:
    """Mean of a measure over the tail's vectors, those of the ``tail`` largest eigenvalues, and over the bulk's.

    Args:
        values: the measure, one a vector.
        eigenvalues: λ of the vectors, in the same order.
        tail: number of eigenvalues in the tail.

    Returns:
        (tail, bulk); NaN for the one that has no vector.

    >>> tail_and_bulk([0.9, 0.5, 0.9], [1.0, 9.0, 0.5], tail=1)
    (0.5, 0.9)
    """
    by_size = np.asarray(values, dtype=np.float64)[np.argsort(eigenvalues)[::-1]]
    return _mean(by_size[:tail]), _mean(by_size[tail:])


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.mean(finite)) if len(finite) else float("nan")
