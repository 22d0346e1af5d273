"""Values of a frozen record as JSON and back, each checked against the type that its field has. It needs no jax."""

import difflib
import json
import math
import typing


def plain(value):
    """Returns a value as JSON holds it: tuples as lists, infinities as text.

    Args:
        value: number, text, None, or a tuple, list or dict of them.

    Returns:
        The JSON value.
    """
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def typed(value, hint, what: str):
    """Returns a JSON value as the type that a field has.

    Args:
        value: JSON value.
        hint: type of the field: int, float, str, bool, dict, a tuple of them, or one of these or None.
        what: name of the field for the message.

    Returns:
        The value; whole numbers as floats and lists as tuples where the type says so.

    Raises:
        ValueError: if the value is of another type.
    """
    members = typing.get_args(hint)
    if type(None) in members:
        return None if value is None else typed(value, members[0], what)
    if typing.get_origin(hint) is tuple:
        kinds = members[:1] * len(value) if members[-1] is ... and isinstance(value, list) else members
        if isinstance(value, list) and len(value) == len(kinds):
            return tuple(typed(item, kind, what) for item, kind in zip(value, kinds, strict=True))
    elif hint is float and (value == "inf" or type(value) in (int, float)):
        return float(value)
    elif type(value) is hint:
        return {name: _tuples(item) for name, item in value.items()} if hint is dict else value
    name = getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)
    raise ValueError(f"{what} is {json.dumps(value)}: give {name}")


def shown(value) -> str:
    """Returns a JSON value as text for a message.

    Args:
        value: JSON value.

    Returns:
        Text as it is, anything else as JSON.
    """
    return value if isinstance(value, str) else json.dumps(value)


def near(name, known) -> str:
    """Returns a hint at the most similar known name.

    Args:
        name: what was given.
        known: the names that exist.

    Returns:
        `"; did you mean ...?"`, or nothing.
    """
    found = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {found[0]}?" if found else ""


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
