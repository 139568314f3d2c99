"""The quantities of a representation probe. They need the model to run, so they are not ``LayerWeights`` quantities."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ww_callbacks.spectral.measuring.quantity_info import Cost, QuantityInfo, Worst


@dataclass(frozen=True, kw_only=True)
class ProbeQuantity(QuantityInfo):
    """One quantity of a probe.

    Attributes:
        scope: ``layer`` (one value a layer) or ``model``.
        needs_labels: whether the probe batch must carry labels.
    """

    family: str = "representation"
    cost: Cost = "probe"
    worst: Worst = "low"
    scope: Literal["layer", "model"] = "layer"
    needs_labels: bool = False


PROBE_QUANTITIES: dict[str, ProbeQuantity] = {
    q.name: q
    for q in (
        ProbeQuantity(
            name="feature_rank",
            title="numerical rank of features",
            definition="#{σ_i(F − mean) ≥ ε·σ_1(F)}, ε = 1.19e-7·(number of σ)",
            default=True,
        ),
        ProbeQuantity(
            name="feature_effective_rank",
            title="effective rank of features",
            definition="exp(−Σ p ln p), p = σ/Σσ of the centred features",
            default=True,
        ),
        ProbeQuantity(
            name="jacobian_rank",
            title="partial rank of the Jacobian",
            definition="#{λ ≥ ε²·λ_1} of JᵀJ, J = ∂features/∂(input patch), mean over samples",
        ),
        ProbeQuantity(
            name="perturbed_pca_dimension",
            title="perturbed PCA dimension",
            definition="#{λ ≥ 1.19e-7·n·λ_1} of the features' covariance at x + N(0, δ²I), mean over points",
        ),
        ProbeQuantity(
            name="classification_dimension",
            title="classification dimension",
            definition="least k with accuracy(top-k principal components of the final features) ≥ 95 % of the accuracy",
            scope="model",
            needs_labels=True,
        ),
        ProbeQuantity(
            name="independence_deficit",
            title="independence deficit",
            definition="share of a class's logit (mean square) that a Lasso on the others explains, mean over classes",
            scope="model",
            needs_labels=True,
        ),
    )
}


def resolve_probe(names: str | Iterable[str] = "default") -> tuple[ProbeQuantity, ...]:
    """The probe quantities selected by ``names``, in the order of declaration.

    Args:
        names: ``"default"``, ``"all"``, one name, or several of these.

    Raises:
        ValueError: for an unknown name, with the nearest ones.
    """
    wanted: set[str] = set()
    for name in [names] if isinstance(names, str) else names:
        if name == "default":
            wanted.update(q.name for q in PROBE_QUANTITIES.values() if q.default)
        elif name == "all":
            wanted.update(PROBE_QUANTITIES)
        elif name in PROBE_QUANTITIES:
            wanted.add(name)
        else:
            near = difflib.get_close_matches(str(name), PROBE_QUANTITIES, n=3, cutoff=0.4)
            hint = f" Did you mean {', '.join(f'`{n}`' for n in near)}?" if near else ""
            raise ValueError(
                f"Unknown probe quantity `{name}`.{hint} "
                f"Expected 'default', 'all' or some of: {', '.join(PROBE_QUANTITIES)}."
            )
    if not wanted:
        raise ValueError(f"Expected at least one probe quantity of: {', '.join(PROBE_QUANTITIES)}; got none.")
    return tuple(q for q in PROBE_QUANTITIES.values() if q.name in wanted)
