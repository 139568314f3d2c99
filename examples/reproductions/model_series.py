"""Metrics of the weights against test accuracy over series of models: depth, and hyper-parameters.

Published (Martin, Peng, Mahoney 2021; Martin, Mahoney 2021): α and alpha_weighted predict accuracy over a series; the
log spectral norm shows Simpson's paradox between architectures, which alpha_weighted repairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from examples.reproductions._networks import mlp, seeded
from examples.reproductions._report import Report, arguments
from examples.reproductions._training import accuracy, flat_digits, train
from ww_callbacks import spectral
from ww_callbacks.integrations import figures
from ww_callbacks.spectral.aggregate.model_ranking import model_series

METRICS = ("alpha", "alpha_weighted", "log_spectral_norm", "log_norm", "log_alpha_norm", "stable_rank", "rand_distance")


def measured(model: torch.nn.Module) -> dict[str, float]:
    """Means over layers; α's over all with a fit, and over those with enough evidence."""
    layers = spectral.analyze(model, [*METRICS, "alpha_evidence"], min_eigenvalues=50, workers=1).layers
    enough = layers[layers["alpha_evidence"] == "sufficient"]
    return {
        **{name: float(layers[name].astype(float).mean()) for name in METRICS},
        "alpha, enough evidence": float(enough["alpha"].astype(float).mean()) if len(enough) else float("nan"),
        "correlation of rand_distance with alpha": float(layers["rand_distance"].corr(layers["alpha"])),
    }


def main(argv: Sequence[str] | None = None) -> dict:
    args = arguments(__doc__, argv)
    torch.set_num_threads(args.threads)
    width, epochs = (60, 2) if args.quick else (200, 25)
    depths = (2, 3) if args.quick else (2, 3, 4, 6, 8)
    rates = (1e-3, 3e-3) if args.quick else (3e-4, 1e-3, 3e-3)
    decays = (0.0, 0.1) if args.quick else (0.0, 0.03, 0.3, 3.0)
    images, labels, test, test_labels = flat_digits(args.seed, noise=0.2)
    report = Report(
        "model_series",
        "Metrics against accuracy over series of models",
        {
            "networks": f"MLP of width {width}, depth {depths}, AdamW rates {rates}, weight decay {decays}",
            "data": "digits with 20 % label noise",
            "epochs": epochs,
            "seed": args.seed,
        },
    )
    rows = []
    for depth in depths:
        for rate in rates:
            for decay in decays:
                model = seeded(lambda depth=depth: mlp(width, depth), args.seed)
                optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=decay)
                train(model, images, labels, epochs, optimiser=optimiser, seed=args.seed)
                right = accuracy(model, test, test_labels)
                rows.append({"depth": depth, "rate": rate, "decay": decay, "accuracy": right, **measured(model)})
    report.table("models", rows, "The models")
    names = (*METRICS, "alpha, enough evidence")
    best = (rates[len(rates) // 2], 0.0)
    # One network that did not train, far from all others, would turn every line over all of them.
    trained = [r for r in rows if r["accuracy"] > 0.5]
    series = {
        "depth (fixed hyper-parameters)": [r for r in rows if (r["rate"], r["decay"]) == best],
        "hyper-parameters (fixed depth)": [r for r in rows if r["depth"] == depths[len(depths) // 2]],
        "all": rows,
        "all that trained": trained,
    }
    table = [{"metric": name, **_against(members, name, label)} for label, members in series.items() for name in names]
    report.table("series", table, "Each metric against test accuracy: least squares and rank correlation")
    paradox = []
    for name in ("log_spectral_norm", "alpha", "alpha_weighted"):
        members = {d: [r for r in trained if r["depth"] == d] for d in depths}
        within = [_fit(members[d], name) for d in depths]
        between = model_series(
            [np.mean([r[name] for r in members[d]]) for d in depths],
            [np.mean([r["accuracy"] for r in members[d]]) for d in depths],
        )
        slopes = [w.slope for w in within]
        contrary = sum(np.sign(slope) != np.sign(between.slope) for slope in slopes)
        paradox.append(
            {
                "metric": name,
                "slopes within a depth": ", ".join(f"{s:+.3g}" for s in slopes),
                "slope over all that trained": _fit(trained, name).slope,
                "slope of the depths' means": between.slope,
                "depths that contradict it": f"{contrary} of {len(slopes)}",
            }
        )
    caption = "Simpson's paradox: the slope within each depth against that of the depths' means, of those that trained"
    report.table("simpson", paradox, caption)
    by_depth = {f"depth {d}": [r for r in rows if r["depth"] == d] for d in depths}
    for name in ("log_spectral_norm", "alpha_weighted"):
        fits = {label: _fit(members, name) for label, members in by_depth.items()}
        scatter = figures.metric_against_accuracy(fits, f"{name} (mean over layers)", "test accuracy")
        scatter.update_layout(legend={"orientation": "v", "x": 1, "y": 1, "yref": "paper", "yanchor": "auto"})
        report.plot(f"{name}_accuracy", f"Test accuracy against {name}, a line a depth", scatter)
    lines = {label: ([r["alpha"] for r in m], [r["rand_distance"] for r in m]) for label, m in by_depth.items()}
    title = "rand_distance against alpha (means over layers)"
    report.figure("alpha_rand_distance", title, "alpha", "rand_distance", lines, markers=True)
    report.text(
        "These are small networks of one family on one small set, so the published correlations on pretrained ImageNet "
        "models need not appear; what does not is kept here as it came out. Accuracy falls with label noise that is "
        "learned by heart, which the weights of a small network show otherwise than those of a well trained large one."
    )
    report.write(args.out)
    return report.numbers


def _fit(members: Sequence[dict], name: str):
    return model_series([m[name] for m in members], [m["accuracy"] for m in members])


def _against(members: Sequence[dict], name: str, label: str) -> dict[str, object]:
    fit = _fit(members, name)
    return {
        "series": label,
        "models": fit.models,
        "slope": fit.slope,
        "R²": fit.r2,
        "RMSE": fit.rmse,
        "Kendall τ": fit.kendall,
        "p": fit.kendall_p,
    }


if __name__ == "__main__":
    main()
