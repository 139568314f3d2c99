"""The average of the weights: its formula, what it averages, and that the trained weights come back exactly."""

from pathlib import Path

import numpy as np
import pytest

from ww_callbacks.adapters.current_arrays import CurrentArrays
from ww_callbacks.adapters.saved_weights import weight_average
from ww_callbacks.adapters.saved_weights.any_weights import ArrayWeights, weights_of
from ww_callbacks.adapters.saved_weights.best_weights import BestWeights
from ww_callbacks.adapters.saved_weights.weight_average import WeightAverage


def debiased(series, decay, weights=None):
    """Σ dᵗ⁻ˢ W_s / Σ dᵗ⁻ˢ."""
    t = len(series)
    w = np.array([decay ** (t - 1 - s) for s in range(t)]) * (1 if weights is None else weights)
    return np.tensordot(w / w.sum(), np.array(series), 1)


def walk(average, arrays, steps, seed=0):
    generator, seen = np.random.default_rng(seed), []
    for _ in range(steps):
        arrays["a"][...] += generator.normal(size=arrays["a"].shape)
        average.step()
        seen.append(arrays["a"].copy())
    return seen


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_it_is_the_debiased_average_over_an_epoch(steps):
    arrays = {"a": np.full((3, 2), 100.0), "count": np.arange(3)}
    average = WeightAverage(ArrayWeights(CurrentArrays(arrays)), 10)
    seen = walk(average, arrays, steps)
    copies = average.copies()
    np.testing.assert_allclose(copies["a"], debiased(seen, 0.9))
    assert "count" not in copies


def test_until_the_length_of_an_epoch_is_known_all_steps_weigh_the_same():
    arrays = {"a": np.zeros((2, 2))}
    average = WeightAverage(ArrayWeights(CurrentArrays(arrays)))
    seen = walk(average, arrays, 6)
    np.testing.assert_allclose(average.copies()["a"], np.mean(seen, 0))
    average.end_epoch()
    before = average.copies()["a"]
    (last,) = walk(average, arrays, 1)
    mass = 6 * (1 - 1 / 6) + 1
    np.testing.assert_allclose(average.copies()["a"], before + (last - before) / mass)


def test_a_long_epoch_is_sampled_and_the_last_weights_always_count(monkeypatch):
    monkeypatch.setattr(weight_average, "UPDATES_AN_EPOCH", 5)
    arrays = {"a": np.zeros((2, 2))}
    average = WeightAverage(ArrayWeights(CurrentArrays(arrays)), 20)
    seen = walk(average, arrays, 22)
    taken, spans = [*seen[3::4], seen[-1]], np.array([4] * 5 + [2])
    reached = np.cumsum(spans)
    weights = spans * 0.95 ** (reached[-1] - reached)
    np.testing.assert_allclose(average.copies()["a"], np.tensordot(weights / weights.sum(), np.array(taken), 1))


def test_it_goes_on_from_a_saved_state():
    arrays = {"a": np.zeros((2, 2))}
    one = WeightAverage(ArrayWeights(CurrentArrays(arrays)), 100)
    walk(one, arrays, 7)
    other = WeightAverage(ArrayWeights(CurrentArrays(arrays)), 100)
    other.restore(one.state(), one.weights.average())
    for _ in range(7):
        arrays["a"] += 1
        one.step()
        other.step()
    np.testing.assert_array_equal(one.copies()["a"], other.copies()["a"])
    with pytest.raises(KeyError):
        other.restore({}, {})


def test_the_best_weights_are_those_of_the_best_step():
    arrays = {"a": np.zeros(2)}
    average = WeightAverage(ArrayWeights(CurrentArrays(arrays)), 1)
    best = BestWeights(average)
    for step, wanted in ((1, {1}), (2, {1, 2}), (3, {1, 3}), (4, {1, 4})):
        arrays["a"][:] = step
        average.step()
        best.look(step, frozenset(wanted), averaged=True)
    assert sorted(best.copies()) == ["1#a", "4#a"]
    again = BestWeights(average)
    again.restore(best.copies())
    assert again.put(1) and arrays["a"].tolist() == [1, 1]
    assert not again.put(2) and arrays["a"].tolist() == [1, 1]
    arrays["a"][:] = 9  # the average no longer follows: what is trained is kept
    best.look(5, frozenset({5}), averaged=False)
    assert best.copies()["5#a"].tolist() == [9, 9]


def test_arrays_of_jax_are_averaged_where_they_lie_and_saved(tmp_path):
    jnp = pytest.importorskip("jax.numpy")
    from safetensors.numpy import load_file

    params = {"w": jnp.zeros((2, 3), jnp.bfloat16), "n": jnp.arange(2)}
    average = WeightAverage(ArrayWeights(CurrentArrays(lambda: params)), 4)
    for value in (1.0, 2.0, 5.0):
        params = {"w": jnp.full((2, 3), value, jnp.bfloat16), "n": jnp.arange(2)}
        average.step()
    average.save(print, tmp_path / "a.safetensors")
    expected = debiased([np.full((2, 3), v) for v in (1.0, 2.0, 5.0)], 0.75)
    np.testing.assert_allclose(load_file(tmp_path / "a.safetensors")["w"], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="cannot be changed in place"):
        average.put(average.copies())


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch")

    def net(self, dtype=None):
        nn = self.torch.nn
        self.torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).to(dtype)

    def train(self, net, average, steps):
        torch, seen = self.torch, []
        optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)
        for _ in range(steps):
            optimizer.zero_grad()
            x = torch.randn(8, 4).to(next(net.parameters()).dtype)
            net(x).float().square().mean().backward()
            optimizer.step()
            average.step()
            seen.append({n: t.detach().double().numpy().copy() for n, t in net.state_dict().items()})
        return seen

    def test_parameters_and_running_statistics_are_averaged(self):
        net = self.net()
        average = WeightAverage(weights_of(net), 5)
        seen = self.train(net, average, 12)
        trained, saved = {n: t.clone() for n, t in net.state_dict().items()}, {}
        average.save(lambda _: saved.update({n: t.clone() for n, t in net.state_dict().items()}), Path())
        for name, tensor in saved.items():
            if name.endswith("num_batches_tracked"):
                assert tensor == 12
                continue
            expected = debiased([s[name] for s in seen], 0.8)
            np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-6, err_msg=name)
        for name, tensor in net.state_dict().items():
            assert self.torch.equal(tensor, trained[name])

    def test_half_precision_is_averaged_in_single(self):
        net = self.net(self.torch.bfloat16)
        average = WeightAverage(weights_of(net), 60)
        seen = self.train(net, average, 30)
        copies = average.copies()
        assert copies["0.weight"].dtype == self.torch.float32
        expected = debiased([s["0.weight"] for s in seen], 1 - 1 / 60)
        np.testing.assert_allclose(copies["0.weight"].numpy(), expected, atol=1e-3)
        trained = {n: t.clone() for n, t in net.state_dict().items()}
        other = []
        average.save(lambda _: other.append(not self.torch.equal(net[0].weight, trained["0.weight"])), Path())
        assert other == [True]
        assert all(self.torch.equal(t, trained[n]) for n, t in net.state_dict().items())

    def test_what_is_frozen_takes_no_memory_and_joins_when_it_is_trained(self):
        net = self.net()
        net[0].requires_grad_(False)
        average = WeightAverage(weights_of(net), 4)
        self.train(net, average, 3)
        assert "0.weight" not in average.copies()
        net[0].requires_grad_(True)
        start = net[0].weight.detach().double().numpy().copy()
        seen = [start] * 3 + [s["0.weight"] for s in self.train(net, average, 4)]
        # The first step after the thaw is where it is first seen.
        seen[:3] = [seen[3]] * 3
        np.testing.assert_allclose(average.copies()["0.weight"].numpy(), debiased(seen, 0.75), atol=1e-6)

    def test_complex_weights(self):
        net = self.torch.nn.Module()
        net.w = self.torch.nn.Parameter(self.torch.ones(2, dtype=self.torch.complex64))
        average = WeightAverage(weights_of(net), 2)
        for value in (1j, 3j):
            net.w.data.fill_(value)
            average.step()
        seen = []
        average.save(lambda _: seen.append(net.w.detach().numpy().copy()), Path())
        np.testing.assert_allclose(seen[0], (0.5 * 1j + 3j) / 1.5)
        assert net.w[0] == 3j

    def test_zero_three_is_refused(self):
        net = self.net()
        net[0].weight.ds_id = 3
        with pytest.raises(ValueError, match="ZeRO-3"):
            weights_of(net)
