"""The 5+1 phases by shrinking the batch, and latent semantic analysis of real text.

Published (Martin, Mahoney 2021): a smaller batch takes a layer from a bulk with spikes to a heavy tail and at last to
rank collapse; in latent semantic analysis the power-law tail begins near the elbow of explained variance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from examples.data import FOLDER_VARIABLE, english
from examples.reproductions._networks import mlp, seeded
from examples.reproductions._report import Report, arguments
from examples.reproductions._training import accuracy, flat_digits, flat_mnist, train
from ww_callbacks.spectral.aggregate.tail_start import tail_rank
from ww_callbacks.spectral.fits.clauset import clauset_fit
from ww_callbacks.spectral.linalg.spectrum import singular_values
from ww_callbacks.spectral.random_matrix.phases import phase


def by_batch(data: Sequence[torch.Tensor], batches: Sequence[int], epochs: int, width: int, seed: int) -> list[dict]:
    """Phase, α and accuracy of the middle layers after the same number of epochs at each batch size."""
    images, labels, test, test_labels = data
    rows = []
    for batch in batches:
        model = seeded(lambda: mlp(width, 3, images.shape[1]), seed)
        optimiser = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
        loss = train(model, images, labels, epochs, batch=batch, optimiser=optimiser, seed=seed)
        row: dict[str, object] = {
            "batch": batch,
            "train loss": loss,
            "test accuracy": accuracy(model, test, test_labels),
        }
        for index in (2, 4):
            weight = model[index].weight.detach().double().numpy()
            if not np.isfinite(weight).all():
                row[f"layer {index // 2 + 1}"] = "not finite"
                continue
            eigenvalues = singular_values(weight) ** 2
            fit = clauset_fit(eigenvalues)
            row[f"layer {index // 2 + 1}"] = phase(eigenvalues, weight.shape, fit).name
            row[f"α, layer {index // 2 + 1}"] = fit.alpha
        rows.append(row)
    return rows


def chapters(path: str | None) -> tuple[list[str], str]:
    """Chapters of the book at ``path`` (or of the data folder), else the topics of CPython's own help."""
    if path is not None:
        text = english(path)
        parts = [p for p in re.split(r"\bCHAPTER\b[ .]+[0-9IVXLC]+", text, flags=re.IGNORECASE) if len(p) > 1500]
        return parts, f"{len(parts)} chapters of {Path(path).name}"
    from pydoc_data.topics import topics

    parts = [t for t in topics.values() if len(t) > 1500]
    return parts, f"{len(parts)} topics of CPython's help"


def elbow(curve: np.ndarray) -> int:
    """The rank (from 1) at which a curve is farthest from the chord between its ends."""
    y = (curve - curve[0]) / (curve[-1] - curve[0])
    return int(np.argmax(np.abs(y - np.linspace(0, 1, len(y))))) + 1


def semantics(texts: Sequence[str]) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Where the tail of the tf–idf matrix begins, next to the elbows."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    matrix = TfidfVectorizer(stop_words="english", min_df=2, sublinear_tf=True).fit_transform(texts).toarray()
    found = tail_rank(matrix)
    window = max(3, len(found.localization_ratio) // 15)
    smooth = np.convolve(found.localization_ratio, np.ones(window) / window, mode="valid")
    row = {
        "documents": float(matrix.shape[0]),
        "terms": float(matrix.shape[1]),
        "power-law tail: rank": float(found.rank),
        "α": found.alpha,
        "explained there": found.explained_by_tail,
        "elbow of explained variance": float(elbow(found.explained_variance)),
        "elbow of the localisation ratio": float(elbow(smooth)),
        "rank for 50 % of the variance": float(found.rank_for(0.5)),
    }
    return row, found.explained_variance, found.localization_ratio


def main(argv: Sequence[str] | None = None) -> dict:
    import os

    args = arguments(__doc__, argv)
    torch.set_num_threads(args.threads)
    folder = args.data or os.environ.get(FOLDER_VARIABLE)
    book = None
    if args.quick:
        data, batches, epochs, width = flat_digits(args.seed), (64, 16), 2, 60
    else:
        images, labels, test, test_labels = flat_mnist(args.data)
        data, batches, epochs, width = (
            (images[:10000], labels[:10000], test, test_labels),
            (500, 200, 64, 32, 16, 8, 4, 2),
            3,
            300,
        )
        book = str(Path(folder or "") / "text" / "moby-dick.txt.gz")
    report = Report(
        "phases",
        "Phases by batch size, and the tail of a text",
        {
            "network": f"{data[0].shape[1]}-{width}-{width}-{width}-10, ReLU, SGD .02 with momentum .9",
            "epochs": epochs,
            "training images": len(data[0]),
            "seed": args.seed,
        },
    )
    report.table(
        "batches", by_batch(data, batches, epochs, width, args.seed), "Phase of the square layers by batch size"
    )
    texts, what = chapters(book)
    row, explained, localisation = semantics(texts)
    report.table("semantics", [row], f"Latent semantic analysis of {what} (tf–idf)")
    ranks = list(range(1, len(explained) + 1))
    report.figure(
        "semantics",
        "Along the ranks",
        "rank",
        "share",
        {
            "explained variance": (ranks, list(explained)),
            "localisation ratio / largest": (ranks, list(localisation / localisation.max())),
        },
    )
    report.text(
        f"The power-law tail begins at rank {row['power-law tail: rank']:.0f}, the elbow of explained variance is at "
        f"{row['elbow of explained variance']:.0f} and that of the smoothed localisation ratio at "
        f"{row['elbow of the localisation ratio']:.0f}. The phases are decided by the written tests of "
        "`ww_callbacks.spectral.random_matrix.phases`, where the paper decides by eye; its network and data were "
        "larger."
    )
    report.write(args.out)
    return report.numbers


if __name__ == "__main__":
    main()
