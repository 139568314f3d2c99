"""Imports go downwards only, and nothing is imported under a name outside the package."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ww_callbacks"
MOST_FILES = 12
"""In one folder, its `__init__.py` included."""
SOURCES = sorted(p for p in PACKAGE.rglob("*.py"))

FLOORS = [
    ("spectral",),
    ("integrations",),
    # the training loop
    ("faults", "settings", "probes"),
    ("engine",),
    ("scheduling",),
    ("diagnosis",),
    ("lifecycle",),
    ("publishing",),
    ("run",),
    ("adapters",),
    ("monitor", "lightning", "keras", "huggingface"),
    ("", "commands"),
]
"""Lower ones first. A room imports from the same floor and from lower ones."""


def module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module(p) for p in SOURCES}


def imports(path: Path) -> Iterator[str]:
    """The modules of the project that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name and name != "ww_callbacks":
                yield name


def floor(name: str) -> int:
    room = name.split(".")[1] if "." in name else ""
    return next((i for i, rooms in enumerate(FLOORS) if room in rooms), len(FLOORS) - 1)


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_imports_go_downwards(path):
    up = [name for name in imports(path) if floor(name) > floor(module(path))]
    assert not up, f"{module(path)} imports from the floor above: {up}"


def test_no_circle_of_modules():
    graph = {module(p): {name for name in imports(p) if name != module(p)} for p in SOURCES}
    for name in graph:  # a package's front door may import its own rooms, and they each other
        graph[name] = {other for other in graph[name] if not name.startswith(f"{other}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("folder", ["ww_callbacks", "tests", "examples", "benchmarks", "docs"])
def test_nothing_is_imported_through_the_links_at_the_top_level(folder):
    """The links `spectral` and `integrations` show the rooms; a second copy of the modules would come through them."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and node.level == 0
                else []
            )
            assert not {"spectral", "integrations"} & {name.partition(".")[0] for name in names}, path


def test_the_links_are_relative():
    for name in ("spectral", "integrations"):
        link = ROOT / name
        if link.is_symlink():  # a zip archive and some checkouts do not keep links
            assert link.readlink() == Path("ww_callbacks") / name


def test_every_folder_says_what_it_is_for_and_holds_few_files():
    for init in PACKAGE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(init.read_text())), f"{init} has no docstring"
        files = [p.name for p in init.parent.glob("*.py")]
        assert len(files) <= MOST_FILES, f"{init.parent} has {len(files)} files: {files}"
