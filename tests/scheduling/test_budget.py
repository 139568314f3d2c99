"""Within `max_overhead`: what is chosen, what is left out, and that the cost stays below the share."""

import time

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
from torch import nn

from ww_callbacks import SpectralMonitor
from ww_callbacks.engine.engine import LayerState
from ww_callbacks.integrations.record import read_run
from ww_callbacks.scheduling.budget import Budget
from ww_callbacks.scheduling.meter import Meter
from ww_callbacks.spectral.layers.spec import LayerSpec


class Paid(Meter):
    """A meter that says how much may be spent."""

    def __init__(self, credit):
        super().__init__()
        self.credit = credit

    def allowance(self, share):
        return self.credit


SPECS = [LayerSpec(name, (), "dense", "", (n, n), ((n, n),)) for name, n in (("a", 100), ("b", 200), ("c", 400))]


def states(**seconds):
    return {name: LayerState(seconds=value, reference={}) for name, value in seconds.items()}


def test_without_a_budget_everything_is_measured():
    choice = Budget(None).choose("full", 1, SPECS, states(a=1.0, b=1.0, c=1.0), Paid(-1.0))
    assert choice.kind == "full" and choice.spectra is None and choice.left_out == ""


def test_what_is_not_affordable_is_left_out_and_comes_next():
    budget, known = Budget(0.01), states(a=1.0, b=1.0, c=1.0)
    chosen = [budget.choose("full", step, SPECS, known, Paid(1.5)) for step in (1, 2, 3, 4)]
    assert [set(c.spectra) for c in chosen] == [{"a"}, {"b"}, {"c"}, {"a"}]
    assert chosen[0].left_out == "spectra of 2 of 3 layers (b, c)"


def test_a_layer_that_stood_still_is_free():
    known = states(a=1.0, b=1.0, c=1.0)
    known["c"].changed = False
    assert Budget(0.01).choose("full", 1, SPECS, known, Paid(1.0)).spectra == {"a", "c"}


def test_w0_is_paid_for_too():
    known = states(a=1.0, b=1.0, c=1.0)
    known["a"].reference = None
    assert Budget(0.01).choose("full", 1, SPECS, known, Paid(1.5)).spectra == {"b"}


def test_nothing_on_credit_and_the_next_snapshot_says_so():
    budget, known = Budget(0.01), states(a=1.0, b=1.0, c=1.0)
    first = budget.choose("full", 0, SPECS, known, Paid(-1.0))
    assert first.spectra == frozenset(), "the start is always recorded, without spectra"
    assert budget.choose("full", 10, SPECS, known, Paid(-1.0)) is None
    assert budget.choose("cheap", 20, SPECS, known, Paid(-1.0)) is None
    after = budget.choose("full", 30, SPECS, known, Paid(9.0))
    assert after.spectra == {"a", "b", "c"} and after.left_out == "2 snapshots at steps 10 to 20 skipped"


def test_a_run_too_short_for_the_budget_says_so_once_at_its_end(tmp_path, caplog):
    net = nn.ModuleList(nn.Linear(400, 400) for _ in range(2))
    with SpectralMonitor(net, log_dir=str(tmp_path), verbose=0, max_overhead=1e-6) as monitor:
        for step in range(1, 6):
            monitor.observe(step=step, epoch=float(step))
        assert "max_overhead" not in caplog.text
    said = [r.getMessage() for r in caplog.records if "max_overhead" in r.getMessage()]
    assert len(said) == 1 and "snapshots at steps 1 to 5 skipped up to the end" in said[0]
    assert "Training continues" not in said[0]


@pytest.mark.parametrize("background", [False, True])
def test_the_cost_of_a_run_stays_below_the_share(tmp_path, background):
    torch.manual_seed(0)
    net = nn.ModuleList(nn.Linear(200, 200) for _ in range(6))
    share = 0.3
    monitor = SpectralMonitor(net, log_dir=str(tmp_path), verbose=0, max_overhead=share, background=background)
    began = time.perf_counter()
    step = 0
    turns: set[str] = set()
    # Five seconds, and on a slow machine as long as it takes until every layer has had its turn.
    while (elapsed := time.perf_counter() - began) < 5.0 or (len(turns) < 6 and elapsed < 90.0):
        step += 1
        time.sleep(0.1)
        with torch.no_grad():
            for layer in net:
                layer.weight += 0.001 * torch.randn_like(layer.weight)
        snapshot = monitor.observe(step=step, epoch=step / 10)
        if snapshot is not None:
            turns |= {r.layer for r in snapshot.rows if np.isfinite(r.values.get("log_spectral_norm", np.nan))}
    cost = monitor.run.meter.overhead
    monitor.close()
    record = read_run(tmp_path)
    assert cost <= 1.15 * share
    if not background:
        assert cost >= 0.3 * share, "what was earned is used"
    measured = record.layers.dropna(subset=["log_spectral_norm"])
    assert set(measured["layer"]) == {f"{i}.weight" for i in range(6)}, "every layer's turn comes"
    assert record.model["left_out"].str.contains("skipped|spectra of").any()
    assert measured["scale_collapse"].notna().all(), "W_0's spectrum was measured when it could be paid"
