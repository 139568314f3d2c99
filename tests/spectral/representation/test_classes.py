import numpy as np
import pytest

from ww_callbacks.spectral.representation import (
    classification_dimension,
    independence_deficit,
    resolve_probe,
    substitute_logit,
)


def blobs(classes=4, d=20, n=400, spread=0.1, seed=0):
    g = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = np.zeros((classes, d))
    centres[:, :classes] = np.eye(classes) * 3
    return centres[labels] + spread * g.standard_normal((n, d)), centres, labels


def test_separated_classes_need_one_dimension_less_than_their_number():
    features, centres, labels = blobs()
    result = classification_dimension(features, centres, -0.5 * (centres**2).sum(1), labels)
    assert (result.dimension, result.features, result.accuracy) == (3, 20, 1.0)
    assert len(result.curve) == 21 and result.curve[-1] == 1.0 and result.curve[0] == pytest.approx(0.25)


def test_the_last_point_of_the_curve_is_the_models_own_accuracy():
    g = np.random.default_rng(3)
    features, weight, bias = g.standard_normal((200, 15)), g.standard_normal((6, 15)), g.standard_normal(6)
    labels = g.integers(0, 6, 200)
    result = classification_dimension(features, weight, bias, labels)
    own = np.mean(np.argmax(features @ weight.T + bias, 1) == labels)
    assert result.curve[-1] == pytest.approx(own) and result.accuracy == pytest.approx(own)
    assert result.curve[result.dimension] >= 0.95 * own
    assert all(result.curve[: result.dimension] < 0.95 * own)


def test_classification_dimension_refuses_what_does_not_fit():
    features, centres, labels = blobs()
    with pytest.raises(ValueError, match="samples × d"):
        classification_dimension(features, centres[:, :5], None, labels)
    with pytest.raises(ValueError, match="one label a sample"):
        classification_dimension(features, centres, None, labels[:10])
    with pytest.raises(ValueError, match="share"):
        classification_dimension(features, centres, None, labels, share=1.5)


def dependent_logits(n=300):
    """Logits of five classes, in which class 4 is 0.5·(class 0) + 0.5·(class 1) + 12 on its own samples."""
    g = np.random.default_rng(5)
    labels = np.arange(n) % 5
    logits = g.standard_normal((n, 5)) * 2
    logits[np.arange(n), labels] += 30
    own = labels == 4
    logits[own, 0], logits[own, 1] = 20 + g.standard_normal(own.sum()), 22 + g.standard_normal(own.sum())
    logits[own, 4] = 1.3 * logits[own, 0] + 0.1 * g.standard_normal(own.sum())
    return logits, labels


def test_a_logit_that_follows_from_another_is_found_and_predicts_its_class():
    logits, labels = dependent_logits()
    found = substitute_logit(logits, labels, 4)
    assert found.coefficients[4] == 0
    assert found.explained > 0.99
    assert found.recall == found.recall_substituted == 1.0
    independent = substitute_logit(logits, labels, 2)
    assert independent.explained < 0.1 and independent.recall_substituted < 0.1
    assert 0 < independence_deficit(logits, labels) < 0.5


def test_eta_is_the_weight_against_the_mean_square():
    """One regressor: the optimum of mean (y − w x)² + η|w| is (mean xy − η/2)/mean x²."""
    x, y = np.array([3.0, 4.0, 5.0, 1.0]), np.array([6.0, 8.5, 9.0, 1.0])
    labels = np.array([0, 0, 0, 1])
    found = substitute_logit(np.column_stack([y, x]), labels, 0, eta=2.0)
    expected = (np.mean(x[:3] * y[:3]) - 1.0) / np.mean(x[:3] ** 2)
    assert found.coefficients[1] == pytest.approx(expected, rel=1e-6)


def test_a_class_without_samples_is_named():
    logits, labels = dependent_logits()
    with pytest.raises(ValueError, match=r"none of: \[3\]"):
        independence_deficit(logits[labels != 3], labels[labels != 3])


def test_an_unknown_probe_quantity_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean `feature_rank`"):
        resolve_probe(["feature_rnk"])
    assert {q.name for q in resolve_probe()} == {"feature_rank", "feature_effective_rank"}
    assert len(resolve_probe("all")) == 6
