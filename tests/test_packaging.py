"""What is built and installed: one top-level name, next to others' packages and folders of our former names."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import ww_callbacks

ROOT = Path(__file__).parents[1]

TRAINING = """
import sys
import numpy as np
import spectral
from ww_callbacks import SpectralMonitor

assert "ww_callbacks" not in spectral.__file__
weights = {"dense/kernel": np.random.default_rng(0).normal(size=(30, 20))}
with SpectralMonitor(weights, log_dir="runs/a", verbose=0) as monitor:
    weights["dense/kernel"] *= 1.01
    monitor.observe(step=1, epoch=1, train_loss=0.5)
assert len(monitor.history) == 2
assert not {"torch", "keras", "jax"} & set(sys.modules)
"""

TENSORBOARD = """
import tensorboard
from tensorboard import default, program

server = program.TensorBoard(plugins=default.get_plugins())
server.configure(argv=[None, "--logdir", "runs", "--port", "0"])
server.launch()
print("plugin" if any(p.plugin_name == "spectra" for p in default.get_dynamic_plugins()) else "none")
"""


def run(python, code, folder, **environment):
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [python, *code], cwd=folder, capture_output=True, text=True, timeout=200, env={**inherited, **environment}
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the sdist, built from a copy of the tree as git has it or as it lies here."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def fresh(built, tmp_path_factory):
    """A fresh environment that has our wheel, the distribution `spectral`, and its requirements from this one."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    if run(python, [*pip, "spectral==0.24"], folder).returncode != 0:
        pytest.skip("the distribution `spectral` cannot be installed here (no package index)")
    installed = run(python, [*pip, str(built[0])], folder)
    assert installed.returncode == 0, installed.stderr
    # The requirements are those of this environment, but for this checkout's own editable install.
    requirements = folder / "requirements"
    requirements.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("ww_callbacks", "__editable__")):
            (requirements / entry.name).symlink_to(entry)
    (site / "requirements.pth").write_text(f"{requirements}\n")
    return python


@pytest.fixture
def elsewhere(tmp_path):
    """A user's folder with names like our former ones."""
    (tmp_path / "integrations").mkdir()
    (tmp_path / "integrations" / "__init__.py").write_text("raise ImportError('the folder of the user')\n")
    return tmp_path


def test_the_wheel_holds_one_top_level_name(built):
    names = zipfile.ZipFile(built[0]).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ww_callbacks"}
    package = {str(p.relative_to(ROOT)) for p in (ROOT / "ww_callbacks").rglob("*") if p.is_file()}
    assert {name for name in package if "__pycache__" not in name} <= set(names)
    assert any(name.endswith("LICENSE") for name in names) and any(name.endswith("NOTICE") for name in names)


def test_the_sdist_can_run_its_own_tests(built):
    with tarfile.open(built[1]) as archive:
        names = archive.getnames()
    inside = {name.partition("/")[2] for name in names}
    for needed in (
        "conftest.py",
        "Makefile",
        "constraints.txt",
        "tests/conftest.py",
        "tests/data/weightwatcher-0.7.7.json",
    ):
        assert needed in inside
    assert {str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("test_*.py")} <= inside


def test_a_training_beside_the_distribution_spectral_and_a_folder_integrations(fresh, elsewhere):
    done = run(fresh, ["-c", TRAINING], elsewhere)
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "runs" / "a" / "spectral.jsonl").exists()


def test_a_training_beside_a_file_spectral(fresh, tmp_path):
    (tmp_path / "spectral.py").write_text("image = None\n")
    done = run(fresh, ["-c", TRAINING], tmp_path)
    assert done.returncode == 0, done.stderr


def test_tensorboard_starts_there_and_has_the_tab(fresh, elsewhere):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    done = run(fresh, ["-c", TENSORBOARD], elsewhere)
    assert done.returncode == 0 and done.stdout.strip().endswith("plugin"), done.stderr


def test_the_command_works_there(fresh, elsewhere):
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"dense.weight": np.eye(60, 30, dtype=np.float32)}, elsewhere / "model.safetensors")
    command = fresh.parent / "ww-callbacks"
    done = run(command, ["analyze", "model.safetensors"], elsewhere)
    assert done.returncode in (0, 1) and "dense.weight" in done.stdout, done.stderr
    done = run(command, ["--version"], elsewhere)
    assert done.stdout.strip() == f"ww-callbacks {ww_callbacks.__version__}"


def test_uninstalling_ours_leaves_the_other(fresh, elsewhere):
    """The wheels share no file."""
    code = (
        "from importlib.metadata import files\n"
        "ours, theirs = ({str(f) for f in files(n)} for n in ('ww-callbacks', 'spectral'))\n"
        "assert not ours & theirs, ours & theirs\n"
    )
    done = run(fresh, ["-c", code], elsewhere)
    assert done.returncode == 0, done.stderr


def test_there_is_one_version_number():
    text = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in text and not re.search(r'^version = "', text, flags=re.MULTILINE)
    assert f"version: {ww_callbacks.__version__}" in (ROOT / "CITATION.cff").read_text()
