"""The dimension of a network's features: feature matrices and logits in, numbers out.

Source: R. Feng, K. Zheng, Y. Huang, D. Zhao, M. Jordan, Z.-J. Zha, "Rank Diminishing in Deep Neural Networks" (2022).
"""

from ww_callbacks.spectral.representation.classification import ClassificationDimension, classification_dimension
from ww_callbacks.spectral.representation.gaussian_products import (
    gaussian_product_lyapunov,
    gaussian_product_ratio,
    simulate_gaussian_product,
)
from ww_callbacks.spectral.representation.independence import Substitution, independence_deficit, substitute_logit
from ww_callbacks.spectral.representation.quantities import PROBE_QUANTITIES, ProbeQuantity, resolve_probe
from ww_callbacks.spectral.representation.rank import (
    FLOAT32_EPS,
    feature_effective_rank,
    feature_rank,
    jacobian_rank,
    numerical_rank,
    perturbed_pca_dimension,
)

__all__ = [
    "FLOAT32_EPS",
    "PROBE_QUANTITIES",
    "ClassificationDimension",
    "ProbeQuantity",
    "Substitution",
    "classification_dimension",
    "feature_effective_rank",
    "feature_rank",
    "gaussian_product_lyapunov",
    "gaussian_product_ratio",
    "independence_deficit",
    "jacobian_rank",
    "numerical_rank",
    "perturbed_pca_dimension",
    "resolve_probe",
    "simulate_gaussian_product",
    "substitute_logit",
]
