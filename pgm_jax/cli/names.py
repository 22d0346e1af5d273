"""`pgm list` and `pgm show`: the public names and their documentation."""

import difflib
import importlib
import inspect

import pgm_jax
from pgm_jax.core import require

_HIDDEN = ("cli", "core")
# Modules whose names are public although their room does not re-export them.
_INNER = ("recipes.generation", "recipes.mri", "training.ema", "training.objectives")


def public_names(room):
    """Collects the public functions and classes of a room.

    Args:
        room: name of a room of the package.

    Returns:
        Dict from name to object, sorted.
    """
    module = importlib.import_module(f"pgm_jax.{room}")
    kept = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", "").startswith("pgm_jax")
    }
    return dict(sorted(kept.items()))


def rooms():
    """Returns the names of the rooms that a user composes from."""
    return [*(room for room in pgm_jax._ROOMS if room not in _HIDDEN), *_INNER]


def list_names(room=None) -> None:
    """Prints the public names with the first line of their documentation.

    Args:
        room: one room, or None for all.

    Raises:
        ValueError: for an unknown room.
    """
    if room is not None and room not in rooms():
        raise ValueError(f"No room {room!r}: the rooms are {', '.join(rooms())}.")
    console = require("rich.console", "cli").Console()
    table_of = require("rich.table", "cli").Table
    for one in rooms() if room is None else [room]:
        names = public_names(one)
        if not names:
            continue
        table = table_of(title=f"pgm_jax.{one}", box=None, title_justify="left", show_header=False)
        for name, value in names.items():
            table.add_row(name, (inspect.getdoc(value) or "").split("\n")[0])
        console.print(table)


def show_name(name) -> None:
    """Prints the signature and documentation of one public name.

    Args:
        name: `heun` or `samplers.heun`.

    Raises:
        ValueError: for an unknown name, with the nearest ones.
    """
    found = {f"{room}.{key}": value for room in rooms() for key, value in public_names(room).items()}
    matches = [key for key in found if key == name or key.rsplit(".", 1)[1] == name]
    if not matches:
        short = [key.rsplit(".", 1)[1] for key in found]
        near = difflib.get_close_matches(name.rsplit(".", 1)[-1], short, 3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; see `pgm list`"
        raise ValueError(f"No public name {name!r}{hint}")
    for key in matches:
        value = found[key]
        print(f"pgm_jax.{key}{inspect.signature(value)}\n\n{inspect.getdoc(value)}\n")
