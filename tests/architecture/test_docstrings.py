"""Every public name says what it computes, and every public function what it takes and gives."""

import ast
import importlib
import inspect
import re

import pytest
from sources import PACKAGE, rooms, trees


def _documented(value):
    # Names of other libraries and type aliases have their own documentation.
    ours = str(getattr(value, "__module__", "")).startswith("pgm_jax")
    return ours and (inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, "__wrapped__"))


def _public(room):
    """Returns the public names of a room, and those of the modules that its `__init__` re-exports as such."""
    module = importlib.import_module(f"pgm_jax.{room}")
    tree = trees()[PACKAGE / room / "__init__.py"]
    exported = [
        a.asname for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names if a.asname
    ]
    names = {}
    for name in exported:
        value = getattr(module, name)
        if inspect.ismodule(value):
            inside = {
                n: v for n, v in vars(value).items() if getattr(v, "__module__", None) == value.__name__
            }
            names |= {f"{name}.{n}": v for n, v in inside.items() if not n.startswith("_")}
        elif not name.startswith("_"):
            names[name] = value
    return {name: value for name, value in names.items() if _documented(value)}


def _gaps(name, function):
    doc, signature = inspect.getdoc(function) or "", inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    if not parameters:
        return
    arguments = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", doc, re.MULTILINE)
    if not arguments:
        yield f"{name} has no Args section"
        return
    for p in parameters:
        # One entry may describe several: `a, b: two arrays`, with stars before variadic names.
        if not re.search(
            rf"^[ \t]+(?:[\w*]+, )*\*{{0,2}}{p.name}(?:, [\w*]+)*(?: \(.*?\))?:", arguments[1], re.MULTILINE
        ):
            yield f"{name} does not describe {p.name}"
    returns_nothing = signature.return_annotation in (None, "None", type(None))
    if not returns_nothing and not re.search(r"^(Returns|Yields):", doc, re.MULTILINE):
        yield f"{name} has no Returns section"


@pytest.mark.parametrize("room", rooms())
def test_public_names_are_documented(room):
    gaps = []
    for name, value in _public(room).items():
        doc = vars(value).get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
        # NamedTuple and dataclass write the signature where the author wrote nothing.
        if not doc or doc.startswith(f"{value.__name__}("):
            gaps.append(f"{name} has no docstring")
        elif not inspect.isclass(value):
            gaps += _gaps(name, value)
    assert not gaps, f"pgm_jax.{room}:\n" + "\n".join(gaps)
