"""``ww-callbacks analyze`` and ``ww-callbacks compare``: what they print, write and return."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

import spectral
from ww_callbacks.commands import EXIT_ERROR, EXIT_FINDING, EXIT_OK, main

RNG = np.random.default_rng(0)


@pytest.fixture
def weights():
    return {f"h.{i}.weight": RNG.standard_normal((40, 30)).astype(np.float32) for i in range(3)} | {
        "h.0.bias": np.zeros(40, np.float32)
    }


@pytest.fixture
def model(tmp_path, weights):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(weights, path)
    return str(path)


def saved(path, weights, **changed):
    safetensors.numpy.save_file({**weights, **{name.replace("_", "."): value for name, value in changed.items()}}, path)
    return str(path)


def test_analyze_prints_the_table(model, capsys):
    assert main(["analyze", model]) == EXIT_OK
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "3 layers, 1 parameter not measured" in printed.out
    for layer in spectral.analyze(model).layers.to_dict("records"):
        (line,) = [line for line in printed.out.splitlines() if line.strip().startswith(layer["layer"])]
        assert f"{layer['alpha']:.4g}" in line
        assert f"{layer['log_spectral_norm']:.4g}" in line


def test_analyze_writes_every_format(model, tmp_path, capsys):
    outputs = [str(tmp_path / f"table{suffix}") for suffix in (".csv", ".parquet", ".html", ".json")]
    assert main(["analyze", model, *(word for path in outputs for word in ("-o", path))]) == EXIT_OK
    expected = spectral.analyze(model).layers
    pd.testing.assert_frame_equal(pd.read_parquet(outputs[1]), expected, check_dtype=False)
    csv = pd.read_csv(outputs[0], keep_default_na=False)
    np.testing.assert_allclose(csv["alpha"], expected["alpha"], rtol=1e-15)
    page = Path(outputs[2]).read_text(encoding="utf-8")
    assert re.findall(r"<td>(h\.\d\.weight)</td>", page) == list(expected["layer"])
    document = json.loads(Path(outputs[3]).read_bytes())
    assert [row["alpha"] for row in document["layers"]] == list(expected["alpha"])
    assert document["skipped"] == {"h.0.bias": "a vector: it has no spectrum"}


def test_json_is_strict_and_alone_on_standard_output(model, tmp_path, weights, capsys):
    bad = saved(tmp_path / "bad.safetensors", weights, h_1_weight=np.full((40, 30), np.nan, np.float32))
    assert main(["analyze", bad, "--json", "--baseline", model]) == EXIT_FINDING

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    document = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert [row["status"] for row in document["layers"]] == ["ok", "non-finite", "ok"]
    assert document["layers"][1]["alpha"] is None
    assert document["layers"][0]["distance_from_init"] == 0
    assert "effective_rank/mean" in document["summary"]


def test_analyze_options_reach_the_library(model, capsys):
    arguments = ["--layers", "h.1.*", "h.2.*", "--exclude", "h.2.*", "--quantities", "norm", "stable_rank", "--json"]
    assert main(["analyze", model, *arguments]) == EXIT_OK
    (row,) = json.loads(capsys.readouterr().out)["layers"]
    assert (row["layer"], {"norm", "stable_rank"} <= row.keys(), "alpha" in row) == ("h.1.weight", True, False)


def test_describe(model, capsys):
    assert main(["analyze", model, "--describe"]) == EXIT_OK
    printed = capsys.readouterr().out
    assert re.search(r"h\.0\.bias +False.*a vector: it has no spectrum", printed)
    assert "guessed from name and shape" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["analyze", "nothing.safetensors"], "No such file or folder: nothing.safetensors"),
        (["analyze", "MODEL", "--layers", "x.*"], "matches nothing"),
        (["analyze", "MODEL", "--quantities", "alfa"], "Did you mean `alpha`"),
        (["analyze", "MODEL", "-o", "table.docx"], "expected one of .csv, .parquet, .html, .json"),
        (["analyze", "MODEL", "-o", "nowhere/table.csv"], "there is no folder nowhere"),
        (["analyze", "MODEL", "--workers", "0"], "`workers`"),
        (["compare", "MODEL", "nothing.safetensors"], "nothing.safetensors"),
    ],
)
def test_a_user_s_error_is_one_line_and_an_exit_code(model, arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main([model if word == "MODEL" else word for word in arguments]) == EXIT_ERROR
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert "Traceback" not in printed.err


def test_compare_says_what_changed_and_what_got_worse(model, tmp_path, weights, capsys):
    later = saved(
        tmp_path / "later.safetensors",
        weights,
        h_1_weight=weights["h.1.weight"] * np.float32(20),
        h_2_weight=weights["h.2.weight"] + np.float32(0.01),
    )
    assert main(["compare", model, later, "-o", str(tmp_path / "table.csv")]) == EXIT_FINDING
    printed = capsys.readouterr().out
    assert "3 layers compared, 2 changed, 1 got worse" in printed
    assert "largest singular value ×20" in printed
    assert list(pd.read_csv(tmp_path / "table.csv")["changed"]) == [False, True, True]
    assert main(["compare", model, later, "--changed", "--json"]) == EXIT_FINDING
    assert json.loads(capsys.readouterr().out)["worse"] == ["h.1.weight"]
    assert main(["compare", model, later, "--changed"]) == EXIT_FINDING
    assert "h.0.weight" not in capsys.readouterr().out


def test_compare_of_equal_weights_finds_nothing(model, capsys):
    assert main(["compare", model, model]) == EXIT_OK
    assert "0 changed, none got worse" in capsys.readouterr().out


def test_in_a_terminal_the_table_fits_and_a_bar_shows_the_progress(tmp_path):
    names = {f"model.layers.{i}.self_attn.[bold]q_proj.weight": np.eye(12, dtype=np.float32) for i in range(3)}
    path = saved(tmp_path / "model.safetensors", names)
    code = "import sys; from ww_callbacks.commands import main; sys.exit(main(sys.argv[1:]))"
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "40"}
    done = subprocess.Popen(
        [sys.executable, "-c", code, "analyze", path], stdout=follower, stderr=follower, env=environment, close_fds=True
    )
    os.close(follower)
    printed = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not chunk:
            break
        printed += chunk
    os.close(leader)
    assert done.wait() == EXIT_OK
    text = printed.decode()
    assert "measuring" in text
    assert "3/3" in text
    final = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.rsplit("\x1b[?25h", 1)[1])
    assert "not shown for want of width" in final
    assert "[bold]q" in final.replace("\r\n", "")  # a name is no markup
    assert max(len(line.strip("\r")) for line in final.split("\n")) <= 80
