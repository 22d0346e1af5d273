"""Tiers of parametrised tables: a tiny default case, the rest with `-m slow`."""

import pytest


def rest_slow(values, keep=1, ids=None):
    """Returns parameters of which the first `keep` run by default and the rest with `-m slow`."""
    values = list(values)
    names = ids or [None] * len(values)
    return [
        pytest.param(value, id=name, marks=() if number < keep else pytest.mark.slow)
        for number, (value, name) in enumerate(zip(values, names, strict=True))
    ]
