"""Well trained against poorly trained twins of one architecture, as in the comparison of GPT with GPT-2.

Published (Martin, Peng, Mahoney 2021): the poorly trained GPT has larger and scattered α, some very large, and larger
spectral norms; GPT-2, with enough data, has smaller α and a level correlation flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from examples.reproductions._networks import mlp, seeded
from examples.reproductions._report import Report, arguments
from examples.reproductions._training import accuracy, flat_digits, flat_mnist, train
from ww_callbacks import spectral
from ww_callbacks.spectral.aggregate.alpha_flow import correlation_flow

QUANTITIES = ["alpha", "alpha_evidence", "D", "num_pl_spikes", "log_spectral_norm", "alpha_weighted"]


def main(argv: Sequence[str] | None = None) -> dict:
    args = arguments(__doc__, argv)
    torch.set_num_threads(args.threads)
    if args.quick:
        data, few, width, depth, steps = flat_digits(args.seed), 40, 100, 3, 100
    else:
        data, few, width, depth, steps = flat_mnist(args.data), 500, 300, 6, 3000
    images, labels, test, test_labels = data
    report = Report(
        "twins",
        "Well trained against poorly trained twins",
        {
            "network": f"{images.shape[1]}-{'-'.join([str(width)] * depth)}-10, ReLU, Adam 1e-3, batch 64",
            "steps": f"{steps} each",
            "data": f"{len(images)} images against {few}",
            "seed": args.seed,
        },
    )
    summary, layers, histograms = [], [], {}
    for name, n in (("enough data", len(images)), ("too little data", few)):
        model = seeded(lambda: mlp(width, depth, images.shape[1]), args.seed)
        epochs = max(1, round(steps * 64 / n))
        train(model, images[:n], labels[:n], epochs, seed=args.seed)
        found = spectral.analyze(model, QUANTITIES, min_eigenvalues=50, workers=1).layers
        alphas = found["alpha"].to_numpy(dtype=float)
        enough = (found["alpha_evidence"] == "sufficient").to_numpy()
        flow, trusted = correlation_flow(alphas), correlation_flow(alphas, enough)
        histograms[name] = alphas
        summary.append(
            {
                "twin": name,
                "train accuracy": accuracy(model, images[:n], labels[:n]),
                "test accuracy": accuracy(model, test, test_labels),
                "α, mean": flow.mean,
                "α, spread": flow.spread,
                "α, largest": float(np.nanmax(alphas)),
                "flow: slope": flow.slope,
                "flow: roughness": flow.roughness,
                "layers with enough evidence": int(enough.sum()),
                "α there": trusted.mean,
                "log spectral norm, mean": float(found["log_spectral_norm"].mean()),
                "log spectral norm, largest": float(found["log_spectral_norm"].max()),
                "alpha_weighted, mean": float(found["alpha_weighted"].mean()),
            }
        )
        layers += [{"twin": name, **row} for row in found[["layer", *QUANTITIES]].to_dict("records")]
    report.table("summary", summary, "The twins")
    report.table("layers", layers, "Layer by layer")
    edges = np.array([1, 2, 3, 4, 5, 6, 8, 12, 100.0])
    report.table(
        "histogram",
        [
            {"α": f"{a:g}–{b:g}", **{n: int(np.histogram(v, [a, b])[0][0]) for n, v in histograms.items()}}
            for a, b in pairwise(edges)
        ],
        "Histogram of α over layers",
    )
    report.figure(
        "flow",
        "Correlation flow",
        "layer",
        "α",
        {name: (list(range(len(values))), list(values)) for name, values in histograms.items()},
    )
    good, poor = summary
    report.text(
        "As published, the twin with too little data has the larger mean α: "
        f"{_yes(poor['α, mean'] > good['α, mean'])}; "
        f"the rougher flow: {_yes(poor['flow: roughness'] > good['flow: roughness'])}; the larger log spectral norm: "
        f"{_yes(poor['log spectral norm, mean'] > good['log spectral norm, mean'])}. Where `alpha_evidence` is not "
        "`sufficient`, α is noise of the fit: read the columns that leave it out."
    )
    report.write(args.out)
    return report.numbers


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


if __name__ == "__main__":
    main()
