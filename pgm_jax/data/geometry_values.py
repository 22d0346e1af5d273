"""Values of a geometry file, each checked as it is read. Lengths are mm; angles state their unit.

A reader takes the value, where it stands for the message, and the folder in which an NPY file would lie; it returns
what its docstring says, or raises `DataError` with what was given and what is needed.
"""

import difflib
import json
from pathlib import Path

import numpy as np

from pgm_jax.data.errors import DataError

_TURN = {"degrees": 360.0, "radians": 2 * np.pi}


def table(value, what: str, needed=(), optional=()) -> dict:
    """Returns a table after checking the names in it.

    Args:
        value: value of the file.
        what: where it stands, for the message.
        needed: names that must be there.
        optional: names that may be.

    Returns:
        The table, a dict.

    Raises:
        DataError: if it is no table, a name is unknown (with the nearest known one) or missing.
    """
    known = (*needed, *optional)
    if not isinstance(value, dict):
        raise DataError(f"{what} is {shown(value)}: give a table with {', '.join(known)}")
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise DataError(f"{what} has no field '{name}'{hint} Use {', '.join(known)}")
    for name in needed:
        if name not in value:
            raise DataError(f"{what} lacks '{name}': it needs {', '.join(needed)}")
    return value


def shown(value) -> str:
    """Returns a value as JSON for a message, cut to 60 characters.

    Args:
        value: any value of a file.

    Returns:
        The text.
    """
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def number(value, what, folder=None) -> float:
    """Returns a finite number."""
    if type(value) not in (int, float) or not np.isfinite(value):
        raise DataError(f"{what} is {shown(value)}: give a number")
    return float(value)


def length(value, what, folder=None) -> float:
    """Returns a number above 0."""
    if number(value, what) <= 0:
        raise DataError(f"{what} is {shown(value)}: give a number above 0, lengths in mm")
    return float(value)


def width(value, what, folder=None) -> float:
    """Returns a number that is not negative."""
    if number(value, what) < 0:
        raise DataError(f"{what} is {shown(value)}: give a number that is not negative, lengths in mm")
    return float(value)


def count(value, what, folder=None) -> int:
    """Returns a whole number above 0."""
    if type(value) is not int or value < 1:
        raise DataError(f"{what} is {shown(value)}: give a whole number above 0")
    return value


def truth(value, what, folder=None) -> bool:
    """Returns true or false."""
    if type(value) is not bool:
        raise DataError(f"{what} is {shown(value)}: give true or false")
    return value


def one_of(*known):
    """Makes a reader of one of several words."""

    def word(value, what, folder=None) -> str:
        if value not in known:
            raise DataError(f"{what} is {shown(value)}: use {' or '.join(known)}")
        return value

    return word


def several(item, sizes):
    """Makes a reader of a list whose length is one of `sizes`, of values that `item` reads."""

    def values(value, what, folder=None) -> tuple:
        if not isinstance(value, list) or len(value) not in sizes:
            wanted = " or ".join(str(size) for size in sizes)
            raise DataError(f"{what} is {shown(value)}: give a list of {wanted} values")
        return tuple(item(part, f"{what}[{n}]") for n, part in enumerate(value))

    return values


def one_or_many(item):
    """Makes a reader of one value, or of a list with one value a view."""

    def values(value, what, folder=None):
        return (
            several(item, (max(len(value), 1),))(value, what)
            if isinstance(value, list)
            else item(value, what)
        )

    return values


def array(value, what, folder, axes: int) -> np.ndarray:
    """Returns numbers given as nested lists, or as {"file": NAME} of an NPY file beside the geometry file."""
    try:
        if isinstance(value, dict):
            name = table(value, what, ("file",))["file"]
            if not isinstance(name, str) or not name.lower().endswith(".npy"):
                raise DataError(f"{what}.file is {shown(name)}: give the name of an NPY file")
            value = np.load(Path(folder) / name, allow_pickle=False)
        values = np.asarray(value)
        plain = values.dtype.kind in "iuf" and np.all(np.isfinite(values))
    except DataError:
        raise
    except Exception as error:  # a missing or damaged file, or lists of uneven length
        raise DataError(
            f"{what} cannot be read ({type(error).__name__}): give numbers or an NPY file"
        ) from None
    if not plain or values.ndim != axes or values.size == 0:
        raise DataError(f"{what} of shape {values.shape} is not {axes} axes of finite numbers: mend it")
    return values.astype(np.float64)


def angles(value, what, folder=None) -> np.ndarray | None:
    """Returns angles in radians, float64 (views,); None for "projections", whose file holds them.

    A table states the unit, "degrees" or "radians", and gives `values`, or `start`, `stop` (left out) and `count`,
    or an NPY `file`. Angles in radians beyond 4 pi are taken for degrees and refused.
    """
    if value == "projections":
        return None
    found = path_angles(value, what, folder)
    largest = float(np.abs(found).max())
    if value["unit"] == "radians" and largest > 4 * np.pi:
        raise DataError(f"{what} reach {largest:g} radians, beyond 4 pi: state their unit as degrees")
    return found


def path_angles(value, what, folder=None) -> np.ndarray:
    """Returns angles as `angles` does, along a path that may take many turns."""
    if not isinstance(value, dict) or "unit" not in value:
        raise DataError(
            f'{what} state no unit: give {{"unit": "degrees", "values": [...]}}, or start, stop and count'
        )
    optional = ("values", "file", "start", "stop", "count")
    given = tuple(name for name in table(value, what, ("unit",), optional) if name != "unit")
    turn = _TURN[one_of(*_TURN)(value["unit"], f"{what}.unit")] / (2 * np.pi)
    if given == ("values",):
        return array(value["values"], f"{what}.values", folder, 1) / turn
    if given == ("file",):
        return array({"file": value["file"]}, what, folder, 1) / turn
    if set(given) == {"start", "stop", "count"}:
        start, stop = (number(value[name], f"{what}.{name}") for name in ("start", "stop"))
        return np.linspace(start, stop, count(value["count"], f"{what}.count"), endpoint=False) / turn
    raise DataError(
        f"{what} need one of values, file, or start, stop and count; this has {', '.join(given) or 'none'}"
    )


def tilt(value, what, folder=None) -> tuple[float, float, float]:
    """Returns three angles in radians; a table of `unit` and `values`."""
    found = path_angles(value, what, folder)
    if found.shape != (3,):
        raise DataError(f"{what} has {len(found)} angles: give three turns, about the normal, u and v")
    return tuple(float(angle) for angle in found)


def vectors(value, what, folder=None) -> np.ndarray:
    """Returns (views, 4, 3): source, detector centre, u and v of every view in mm."""
    found = array(value, what, folder, 3)
    if found.shape[1:] != (4, 3):
        raise DataError(
            f"{what} has shape {found.shape}: give (views, 4, 3), source, detector centre, u and v in mm"
        )
    return found
