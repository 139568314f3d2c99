"""Real event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.util import tensor_util

from tests.integrations.record.test_record_faults import exit_code, in_child
from tests.integrations.samples import EDGES, alert, run_info, snapshot, verdict
from ww_callbacks.integrations.sinks.tensorboard import TensorBoardSink


def read(folder) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "histograms": 0})
    accumulator.Reload()
    return accumulator


def scalar(accumulator: EventAccumulator, tag: str) -> dict[int, float]:
    return {event.step: float(tensor_util.make_ndarray(event.tensor_proto)) for event in accumulator.Tensors(tag)}


def text(accumulator: EventAccumulator, tag: str) -> list[str]:
    tag = f"spectral/{tag}"
    return [tensor_util.make_ndarray(e.tensor_proto).reshape(-1)[0].decode() for e in accumulator.Tensors(tag)]


def write(sink: TensorBoardSink, folder, steps=range(0, 30, 10)) -> None:
    sink.open(run_info(folder), resumed=False)
    for step in steps:
        sink.snapshot(snapshot(step, densities=True))
    sink.alert(alert(layers=("net.1_weight*|<b>",)))
    sink.close(verdict())


def test_scalars_stand_at_their_step(tmp_path):
    write(TensorBoardSink(tmp_path), tmp_path)
    events = read(tmp_path)
    for name in ("alpha/median", "effective_rank/q90", "alpha/share_sufficient", "alerts"):
        values = scalar(events, f"spectral/{name}")
        assert list(values) == [0, 10, 20]
        assert all(value == np.float32(snapshot(step).model[name]) for step, value in values.items())
    assert scalar(events, "spectral/overhead") == {step: np.float32(0.012) for step in (0, 10, 20)}
    assert "exponent" in events.SummaryMetadata("spectral/alpha/median").summary_description


def test_without_a_folder_it_goes_where_the_record_is(tmp_path):
    sink = TensorBoardSink()
    for name in ("first", "second"):
        write(sink, tmp_path / name)
        assert list(scalar(read(tmp_path / name), "spectral/alpha/median")) == [0, 10, 20]


def test_few_tags_unless_asked(tmp_path):
    write(TensorBoardSink(tmp_path / "few"), tmp_path)
    few = read(tmp_path / "few").Tags()["tensors"]
    assert len(few) < 40 and not any(tag.startswith("spectral_layers/") for tag in few)
    write(TensorBoardSink(tmp_path / "none", scalars=False), tmp_path)
    assert not any("alpha" in tag for tag in read(tmp_path / "none").Tags()["tensors"])
    write(TensorBoardSink(tmp_path / "all", per_layer=True, histograms=True), tmp_path)
    events = read(tmp_path / "all")
    assert scalar(events, "spectral_layers/net.2.weight/alpha")[10] == np.float32(snapshot(10).rows[2].values["alpha"])
    assert "spectral_layers/net.1.weight/scale_collapse" not in events.Tags()["tensors"], "a missing value is no point"


def test_the_histogram_is_the_density_itself(tmp_path):
    write(TensorBoardSink(tmp_path, histograms=True), tmp_path)
    tag = "spectral_layers/net.0.weight/log10_lambda"
    events = read(tmp_path)
    assert events.SummaryMetadata(tag).plugin_data.plugin_name == "histograms"
    for event in events.Tensors(tag):
        buckets = tensor_util.make_ndarray(event.tensor_proto)
        assert buckets.dtype == np.float64 and buckets.shape == (64, 3)
        np.testing.assert_array_equal(buckets[:, 0], EDGES[:-1])
        np.testing.assert_array_equal(buckets[:, 1], EDGES[1:])
        np.testing.assert_array_equal(buckets[:, 2], snapshot(event.step, densities=True).rows[0].density["count"])


def test_words_are_shown_as_they_are(tmp_path):
    write(TensorBoardSink(tmp_path), tmp_path)
    events = read(tmp_path)
    (said,) = text(events, "alert_log")
    assert "critical: scale collapse" in said and "net.1\\_weight\\*" in said and "<b>" not in said
    assert "scale\\_collapse -0.61" in said and "Lower the weight decay." in said and "since epoch 1" in said
    assert "collapsing" in text(events, "verdict")[0]
    worst = text(events, "worst_layers")
    assert len(worst) == 3 and "| net.1.weight | not measured | zero |" in worst[0]
    alphas = {
        row.layer: row.values["alpha"] for row in snapshot(0).rows if row.values["alpha_evidence"] == "sufficient"
    }
    assert all(f"| {layer} |" in worst[0] and f"{value:.4g}" in worst[0] for layer, value in alphas.items())


def test_the_custom_scalars_page_has_a_band_for_each_quantity(tmp_path):
    write(TensorBoardSink(tmp_path), tmp_path)
    events = read(tmp_path)
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor_util.make_ndarray(event.tensor_proto).item())
    bands = [chart.margin.series[0] for chart in layout.category[0].chart if chart.HasField("margin")]
    tags = events.Tags()["tensors"]
    assert len(bands) == 3
    assert all({band.value, band.lower, band.upper} <= set(tags) for band in bands)


def test_tensorboard_shows_a_resumed_run_without_the_steps_done_again(tmp_path):
    from tensorboard.context import RequestContext
    from tensorboard.data import server_ingester
    from tensorboard.data.provider import RunTagFilter
    from tensorboard.util.grpc_util import ChannelCredsType

    try:
        binary = server_ingester.get_server_binary()
    except server_ingester.NoDataServerError as error:
        pytest.skip(f"TensorBoard runs without its data server here: {error}")
    write(TensorBoardSink(tmp_path / "run"), tmp_path, range(0, 60, 10))
    time.sleep(1.1)  # event files are read in the order of their names, which hold the second
    again = TensorBoardSink(tmp_path / "run")
    again.open(run_info(tmp_path, resumed_at=20), resumed=True)
    again.snapshot(snapshot(30))
    again.close(None)
    server = server_ingester.SubprocessServerDataIngester(
        server_binary=binary,
        logdir=str(tmp_path),
        reload_interval=1,
        channel_creds_type=ChannelCredsType.LOCAL,
        samples_per_plugin={},
    )
    server.start()
    tag = "spectral/alpha/median"
    shown: list[int] = []
    for _ in range(50):
        read_back = server.data_provider.read_scalars(
            RequestContext(),
            experiment_id="",
            plugin_name="scalars",
            downsample=1000,
            run_tag_filter=RunTagFilter(tags=[tag]),
        )
        shown = [point.step for point in read_back.get("run", {}).get(tag, [])]
        if shown:
            break
        time.sleep(0.1)
    assert shown == [0, 10, 20, 30]


def test_an_open_writer_of_torch_takes_the_summaries(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    writer.add_scalar("loss", 0.5, 3)
    write(TensorBoardSink(writer._get_file_writer().add_summary), tmp_path)
    writer.add_scalar("loss", 0.4, 4)  # it is still open: it is not ours
    writer.close()
    events = read(tmp_path)
    assert len(list(tmp_path.glob("*tfevents*"))) == 1
    assert [event.step for event in events.Scalars("loss")] == [3, 4]
    assert list(scalar(events, "spectral/alpha/median")) == [0, 10, 20]


def test_nothing_is_imported_before_it_is_opened_and_never_a_framework(tmp_path):
    program = f"""
import sys
from ww_callbacks.integrations.sinks.tensorboard import TensorBoardSink
from ww_callbacks.integrations.sinks.wandb import WandbSink
from tests.integrations.samples import run_info, snapshot
sink, _ = TensorBoardSink({str(tmp_path)!r}), WandbSink()
assert not {{"tensorboard", "wandb"}} & set(sys.modules)
sink.open(run_info(), False)
sink.snapshot(snapshot(0))
sink.close(None)
assert not {{"torch", "tensorflow", "keras", "jax"}} & set(sys.modules), "a framework was imported"
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert "spectral/alpha/median" in read(tmp_path).Tags()["tensors"]


@pytest.mark.parametrize(("module", "extra"), [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_a_missing_extra_is_named_before_training(monkeypatch, module, extra):
    import importlib.util

    from ww_callbacks.integrations.sinks.wandb import WandbSink

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == module else found(name, *more))
    with pytest.raises(ImportError, match=rf"ww-callbacks\[{extra}\]"):
        (TensorBoardSink if module == "tensorboard" else WandbSink)(None)


def test_a_full_disk_is_an_error_and_no_hang(tmp_path):
    import resource

    def fill() -> None:
        sink = TensorBoardSink(tmp_path, histograms=True)
        sink.open(run_info(), resumed=False)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        with pytest.raises(OSError, match="File too large"):
            for step in range(1000):
                sink.snapshot(snapshot(step, densities=True))
        with contextlib.suppress(OSError):
            sink.close(None)

    assert exit_code(in_child(fill)) == 0
    assert len(scalar(read(tmp_path), "spectral/alpha/median")) > 1


def test_a_folder_deleted_in_the_middle_costs_what_was_in_it(tmp_path):
    sink = TensorBoardSink(tmp_path / "run")
    sink.open(run_info(tmp_path / "run"), resumed=False)
    sink.snapshot(snapshot(0))
    shutil.rmtree(tmp_path / "run")
    sink.snapshot(snapshot(10))
    sink.snapshot(snapshot(20))
    sink.close(verdict())
    assert list(scalar(read(tmp_path / "run"), "spectral/effective_rank/median")) == [10, 20]
