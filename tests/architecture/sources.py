"""The package's source files, parsed once for the architecture tests."""

import ast
import functools
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "pgm_jax"


@functools.cache
def files():
    """Returns `{path: source}` of every Python file of the package."""
    return {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def trees():
    """Returns `{path: ast}` of every Python file of the package."""
    return {path: ast.parse(source, filename=str(path)) for path, source in files().items()}


def label(path):
    return str(path.relative_to(PACKAGE.parent))


def rooms():
    return sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
