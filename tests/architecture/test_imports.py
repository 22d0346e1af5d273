"""Arrows point to a lower rank or stay in their room; optional dependencies load only where they are used."""

import ast
import json
import subprocess
import sys

import pytest
from sources import PACKAGE, label, rooms, trees

import pgm_jax

RANKS = {
    room: rank
    for rank, names in enumerate(
        [
            "core parallel",
            "processes networks operators data metrics",
            "priors representations samplers guidance",
            "training reconstruction",
            "recipes verify",
            "bench report",
            "cli",
        ]
    )
    for room in names.split()
}
OPTIONAL = frozenset(
    "matplotlib torch grain tyro rich tqdm nibabel pydicom h5py diffrax scipy unearth skimage".split()
)


def _modules(node, package):
    """Lists the absolute dotted names that an import statement reaches."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parent = package[: len(package) - node.level + 1]
        base = ".".join([*parent, *([base] if base else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def _imports(path, tree):
    package = ("pgm_jax", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, _modules(node, package)


def test_every_room_has_a_rank_and_is_listed():
    assert set(rooms()) <= set(RANKS), "give the new room a rank in DESIGN.md and here"
    assert set(pgm_jax._ROOMS) == set(rooms())


def _wrong_arrows(path, tree):
    room = path.relative_to(PACKAGE).parts[0]
    for node, names in _imports(path, tree) if room in RANKS else ():
        reached = {name.split(".")[1] for name in names if name.startswith("pgm_jax.")} & set(RANKS)
        for other in sorted(reached - {room}):
            if RANKS[other] >= RANKS[room]:
                yield f"{label(path)}:{node.lineno} {room} ({RANKS[room]}) imports {other} ({RANKS[other]})"
        if isinstance(node, ast.Import) and "pgm_jax" in names and room != "cli":
            yield f"{label(path)}:{node.lineno} imports the whole package; import the room it needs"


def test_arrows_point_down_or_stay_inside():
    wrong = [arrow for path, tree in trees().items() for arrow in _wrong_arrows(path, tree)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "from pgm_jax.guidance import chain",
        "from pgm_jax import training",
        "import pgm_jax.priors.gaussian",
        "from ..recipes import ct",
        "from .. import cli",
        "def f():\n    from pgm_jax.verify import table",
        "import pgm_jax as pgm",
    ],
)
def test_a_wrong_arrow_is_seen(line):
    assert len(list(_wrong_arrows(PACKAGE / "samplers" / "new.py", ast.parse(line)))) == 1


@pytest.mark.parametrize(
    "line", ["from pgm_jax.core import inner", "from .heun import step", "import pgm_jax.samplers"]
)
def test_a_right_arrow_passes(line):
    assert not list(_wrong_arrows(PACKAGE / "samplers" / "new.py", ast.parse(line)))


def _at_import_time(node):
    """Yields the import statements that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        yield from _at_import_time(child)


def _wrong_optional(path, tree):
    for node in _at_import_time(tree):
        for name in sorted({name.split(".")[0] for name in _modules(node, ("pgm_jax",))} & OPTIONAL):
            yield f"{label(path)}:{node.lineno} imports {name}; use core.require inside a function"


def test_optional_dependencies_are_not_imported_at_module_level():
    wrong = [found for path, tree in trees().items() for found in _wrong_optional(path, tree)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import scipy.sparse", 1),
        ("try:\n    from matplotlib import pyplot\nexcept ImportError:\n    pass", 1),
        ("class A:\n    import torch", 1),
        ("def f():\n    import torch", 0),
        ("if TYPE_CHECKING:\n    import h5py", 0),
    ],
)
def test_an_optional_import_is_seen(source, count):
    assert len(list(_wrong_optional(PACKAGE / "data" / "new.py", ast.parse(source)))) == count


# flax loads rich by itself, so what the required dependencies load is not counted.
_PROBE = """
import importlib, json, sys
for name in ("jax", "jax.numpy", "flax.nnx", "flax.struct", "optax", "chex", "numpy", "jaxtyping"):
    importlib.import_module(name)
optional, rooms = json.loads(sys.argv[1])
known, report = {name for name in optional if name in sys.modules}, {}
for room in rooms:
    try:
        importlib.import_module(room)
    except Exception as error:
        report[room] = [f"{type(error).__name__}: {error}"]
        continue
    found = {name for name in optional if name in sys.modules} - known
    known |= found
    if found:
        report[room] = sorted(found)
    if "orbax" in sys.modules and not report.get("orbax"):
        report["orbax"] = ["loaded by " + room]
print(json.dumps(report))
"""


@pytest.mark.multiprocess
def test_importing_the_package_loads_no_optional_dependency():
    names = ["pgm_jax", *(f"pgm_jax.{room}" for room in rooms() if room != "cli")]
    command = [sys.executable, "-c", _PROBE, json.dumps([sorted(OPTIONAL), names])]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads(result.stdout.splitlines()[-1]) == {}
