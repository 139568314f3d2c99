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

from tests.spectral.golden import power_law
from ww_callbacks import spectral
from ww_callbacks.commands import EXIT_ERROR, EXIT_FINDING, EXIT_OK, main
from ww_callbacks.spectral.number_text import with_error

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
    assert printed.out.startswith("3 matrices, none with enough evidence for α, 1 parameter not measured")
    for layer in spectral.analyze(model).layers.to_dict("records"):
        (line,) = [line for line in printed.out.splitlines() if line.strip().startswith(layer["layer"])]
        assert f"({with_error(layer['alpha'], layer['sigma'], digits=2)})" in line
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


@pytest.fixture
def heavy(tmp_path):
    """A layer with α < 2 on sufficient evidence, one with α clear of both bounds, and a zero one, in this order."""
    layers = {f"{i}.weight": power_law(alpha).astype(np.float32) for i, alpha in enumerate((1.6, 3.0))}
    return saved(tmp_path / "heavy.safetensors", {**layers, "2.weight": np.zeros((400, 300), np.float32)})


def test_a_label_from_alpha_is_a_hint_with_its_error_and_sets_no_exit_code(heavy, capsys):
    assert main(["analyze", heavy, "--layers", "0.*", "1.*"]) == EXIT_OK
    headline, table, note = capsys.readouterr().out.split("\n\n")
    rows = spectral.analyze(heavy, layers=["0.*", "1.*"]).layers
    assert list(rows["warning"]) == ["over-trained", ""]
    assert headline.startswith(f"2 matrices, 2 with enough evidence for α, median α {rows['alpha'].median():.2g}; ")
    assert "look at 0.weight (hint: α < 2)" in headline
    assert re.search(rf" {with_error(rows['alpha'][0], rows['sigma'][0], digits=2)} +sufficient", table)
    assert "trained" not in headline + table
    assert "α alone does not show" in note


def test_the_table_is_ordered_by_concern_and_by_what_is_asked_for(heavy, capsys):
    def order(*arguments):
        assert main(["analyze", heavy, *arguments]) == EXIT_FINDING
        printed = capsys.readouterr().out
        assert (
            printed.startswith("3 matrices") and "1 of them not ok" in printed and "look at 2.weight (zero)" in printed
        )
        return [int(number) for number in re.findall(r"^ *(\d)\.weight", printed, re.MULTILINE)]

    assert order() == [2, 0, 1]
    assert order("--sort", "depth") == [0, 1, 2]
    assert order("--sort", "effective_rank") == [0, 1, 2]  # its worst end, the low one, first; what is missing last
    assert order("--sort", "alpha") == [1, 0, 2]
    assert main(["analyze", heavy, "--sort", "alfa"]) == EXIT_ERROR
    assert "Expected --sort to be one of concern, depth, layer" in capsys.readouterr().err


def test_alpha_is_never_shown_without_its_error_and_evidence(heavy, capsys):
    assert main(["analyze", heavy, "--quantities", "alpha", "--layers", "0.*"]) == EXIT_OK
    assert re.search(r"1\.\d+ ± 0\.\d+ +sufficient", capsys.readouterr().out)


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


def test_describe_keeps_to_the_filters(model, capsys):
    """They choose among the parameters that are not measured too: that is what one asks about."""
    assert (
        main(["analyze", model, "--describe", "--layers", "h.0.*", "h.1.*", "--exclude", "h.1.*", "--json"]) == EXIT_OK
    )
    rows = json.loads(capsys.readouterr().out)["parameters"]
    assert {row["layer"]: row["what"] for row in rows} == {
        row["layer"]: row["what"] for row in spectral.describe(model).to_dict("records") if "h.0." in row["layer"]
    }
    assert len(rows) == 2
    assert main(["analyze", model, "--describe", "--types", "dense", "--json"]) == EXIT_OK
    assert len(json.loads(capsys.readouterr().out)["parameters"]) == 3
    assert main(["analyze", model, "--describe", "--layers", "h.0.bias"]) == EXIT_OK
    assert "0 layers, 1 parameter " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--quantities", "zzz"], "--quantities"),
        (["--baseline", "nofile"], "--baseline"),
        (["--seed", "3"], "--seed"),
        (["--workers", "-4"], "--workers"),
        (["--min-eigenvalues", "5"], "--min-eigenvalues"),
        (["--quantities", "alpha", "--workers", "2"], "--quantities, --workers"),
    ],
)
def test_describe_refuses_what_it_has_no_use_for(model, arguments, named, capsys):
    assert main(["analyze", model, "--describe", *arguments]) == EXIT_ERROR
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"--describe measures nothing and has no use for {named}: leave" in printed.err


def test_every_option_of_analyze_is_either_of_use_to_describe_or_refused(model, capsys):
    """An option added later must not be ignored."""
    values = {"layers": "h.*", "exclude": "h.1.*", "types": "dense", "convolution": "slices", "baseline": model}
    known = {"model", "describe", "layers", "exclude", "types", "convolution", "output", "json", "quiet", "help"}
    with pytest.raises(SystemExit):
        main(["analyze", "--help"])
    options = set(re.findall(r"--([a-z-]+)", capsys.readouterr().out.partition("options:")[2]))
    for option in {name for name in options if name.replace("-", "_") not in known}:
        assert main(["analyze", model, "--describe", f"--{option}", values.get(option, "7")]) == EXIT_ERROR
        assert f"--{option}" in capsys.readouterr().err


def test_describe_of_a_file_that_holds_nothing(tmp_path, capsys):
    assert main(["analyze", saved(tmp_path / "nothing.safetensors", {}), "--describe"]) == EXIT_OK
    assert "0 layers, 0 parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["analyze", ""], "empty path"),
        (["analyze", "MODEL", "--describe", "--layers", "zzz*"], "'zzz*' in `layers` matches nothing"),
        (["analyze", "nothing.safetensors"], "No such file or folder: nothing.safetensors"),
        (["analyze", "MODEL", "--layers", "x.*"], "matches nothing"),
        (["analyze", "MODEL", "--quantities", "alfa"], "Did you mean `alpha`"),
        (["analyze", "MODEL", "-o", "table.docx"], "expected one of .csv, .parquet, .html, .json"),
        (["analyze", "MODEL", "-o", "nowhere/table.csv"], "the folder nowhere does not exist"),
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


def test_compare_says_what_changed_and_what_broke(model, tmp_path, weights, capsys):
    later = saved(
        tmp_path / "later.safetensors",
        weights,
        h_1_weight=weights["h.1.weight"] * np.float32(20),
        h_2_weight=weights["h.2.weight"] + np.float32(0.01),
    )
    assert main(["compare", model, later, "-o", str(tmp_path / "table.csv")]) == EXIT_FINDING
    printed = capsys.readouterr().out
    assert re.match(
        r"3 layers compared, 2 changed by a median of \d+ % of their norm \(most: h.1.weight 1.9e\+03 %", printed
    )
    assert "1 with a finding; look at h.1.weight (largest singular value ×20)" in printed.splitlines()[0]
    assert "largest singular value ×20" in printed
    assert list(pd.read_csv(tmp_path / "table.csv")["changed"]) == [False, True, True]
    assert main(["compare", model, later, "--changed", "--json"]) == EXIT_FINDING
    assert json.loads(capsys.readouterr().out)["findings"] == ["h.1.weight"]
    assert main(["compare", model, later, "--changed"]) == EXIT_FINDING
    assert "h.0.weight" not in capsys.readouterr().out


def test_compare_shows_and_writes_changed_layers_only(model, tmp_path, weights, capsys):
    later = saved(tmp_path / "later.safetensors", weights, h_2_weight=weights["h.2.weight"] + np.float32(0.01))
    paths = [tmp_path / f"table{suffix}" for suffix in (".csv", ".html", ".json")]
    outputs = [word for path in paths for word in ("-o", str(path))]
    assert main(["compare", model, later, "--changed", "--json", *outputs]) == EXIT_OK
    documents = (json.loads(capsys.readouterr().out), json.loads(paths[2].read_bytes()))
    for document in documents:
        assert [row["layer"] for row in document["layers"]] == ["h.2.weight"]
        assert re.match(r"3 layers compared, 1 changed by a median of [01]\.\d+ % .*, no finding$", document["heading"])
    assert list(pd.read_csv(paths[0])["layer"]) == ["h.2.weight"]
    page = paths[1].read_text(encoding="utf-8")
    assert re.findall(r"<td>(h\.\d\.weight)</td>", page) == ["h.2.weight"]
    assert "3 layers compared, 1 changed" in page


def test_compare_says_in_words_that_nothing_changed(model, tmp_path, capsys):
    table = tmp_path / "table.csv"
    assert main(["compare", model, model, "--changed", "-o", str(table)]) == EXIT_OK
    printed = capsys.readouterr().out
    assert printed.splitlines() == ["3 layers compared, 0 changed, no finding", "", "No layer changed."]
    assert len(pd.read_csv(table)) == 0
    assert main(["compare", model, model, "--changed", "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["layers"] == []


def test_compare_with_weights_that_were_not_finite(model, tmp_path, weights, capsys):
    bad = saved(tmp_path / "bad.safetensors", weights, h_1_weight=np.full((40, 30), np.nan, np.float32))
    assert main(["compare", bad, model]) == EXIT_OK
    assert "no finding, 1 unusable before (h.1.weight)" in capsys.readouterr().out
    assert main(["compare", bad, model, "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["unusable_before"] == ["h.1.weight"]
    assert main(["compare", model, bad]) == EXIT_FINDING


@pytest.mark.parametrize("command", ["compare", "analyze"])
def test_an_unknown_option_shows_the_usage_of_its_command(model, command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, model, *([model] if command == "compare" else []), "--zzz", "alpha"])
    assert ended.value.code == EXIT_ERROR
    printed = capsys.readouterr().err
    assert printed.startswith(f"usage: ww-callbacks {command} ")
    assert f"ww-callbacks {command}: error: unrecognized arguments: --zzz alpha" in printed


def test_compare_of_equal_weights_finds_nothing(model, capsys):
    assert main(["compare", model, model]) == EXIT_OK
    assert "0 changed, no finding" in capsys.readouterr().out


def test_a_pipe_is_as_wide_as_columns_says(tmp_path, capsys, monkeypatch):
    shared = "base_model.model.model."
    names = {f"{shared}layers.{i}.self_attn.q_proj.weight": np.eye(12, dtype=np.float32) for i in range(3)}
    path = saved(tmp_path / "model.safetensors", names)
    monkeypatch.delenv("COLUMNS", raising=False)
    main(["analyze", path, "-q"])
    whole = capsys.readouterr().out
    assert max(map(len, whole.splitlines())) > 100 and all(name in whole for name in names)
    monkeypatch.setenv("COLUMNS", "60")
    main(["analyze", path, "-q"])
    fitting = capsys.readouterr().out
    assert max(map(len, fitting.splitlines())) <= 60 and "\x1b" not in fitting
    assert f"The names of all layers begin with {shared}" in fitting
    assert re.search(r"^layers\.0\.self_attn\.", fitting, re.MULTILINE)


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
    assert "not shown, terminal too narrow: matrices (all 12×12)" in final  # what never varies goes first
    assert "[bold]" in final  # a name is no markup
    # A head has lines as wide as its cells; a long name is broken between its parts.
    assert re.search(r"^model\.layers\.0\.self_attn\.\s", final, re.MULTILINE), final
    heads = final[: final.index("────")]
    assert "spectral" in heads and not re.search(r"spectra\b", heads)
    assert max(len(line.strip("\r")) for line in final.split("\n")) <= 80
