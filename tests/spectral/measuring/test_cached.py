import threading

from ww_callbacks.spectral.measuring.cached import cached_attribute
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights


class Thing:
    calls = 0

    @cached_attribute
    def value(self) -> int:
        """What it is."""
        self.calls += 1
        return 3


def test_it_is_computed_once_an_instance():
    thing, other = Thing(), Thing()
    assert (thing.value, thing.value, thing.calls, other.calls) == (3, 3, 1, 0)
    assert Thing.value.__doc__ == "What it is."
    other.value = 5
    assert (other.value, other.calls) == (5, 0)


def test_two_layers_are_decomposed_at_once(monkeypatch):
    """Each thread waits inside its decomposition until the other one is inside its own."""
    both = threading.Barrier(2, timeout=30)
    monkeypatch.setattr("ww_callbacks.spectral.measuring.layer_weights.gram_singular_values", lambda w: both.wait())
    samples = [LayerWeights([None]), LayerWeights([None])]
    threads = [threading.Thread(target=lambda s=s: s.singular_values) for s in samples]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.broken and all("singular_values" in vars(s) for s in samples)
