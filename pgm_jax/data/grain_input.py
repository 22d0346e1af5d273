"""Batches from grain pipelines (https://github.com/google/grain), for data that do not fit in memory."""

import jax

from pgm_jax.core import require
from pgm_jax.data.batches import process_rows

# Whole batches that threads read ahead of training; grain's own default of 500 would fill the memory.
_AHEAD = 8


def grain_batches(dataset, size: int, *, process_index: int | None = None, process_count: int | None = None):
    """Batches a grain pipeline, each process giving its contiguous rows of the global batch.

    Shuffle, repeat and map in the pipeline: `grain.MapDataset.source(source).shuffle(seed).repeat()`. The
    union over the processes is the batch of a single process, whatever their number. A `MapDataset` reads
    only this process's elements; an `IterDataset` has no random access, so each process reads everything and
    keeps its rows. A last batch that is not full is left out.

    Args:
        dataset: `grain.MapDataset` or `grain.IterDataset` of dicts of arrays, without a batch axis.
        size: rows of the global batch.
        process_index: number of this process; by default `jax.process_index()`.
        process_count: number of processes; by default `jax.process_count()`.

    Returns:
        grain's iterator of dicts of NumPy arrays (size / process_count, ...), with `get_state()`, a dict for
        JSON, and `set_state(state)`. The state counts global batches.

    Raises:
        MissingExtra: if grain is not installed.
        TypeError: if dataset is neither kind.
        ValueError: if the processes do not divide the size, or a `MapDataset` has fewer elements than it.
    """
    grain = require("grain", "input")
    rows = process_rows(size, process_index, process_count)
    local = rows.stop - rows.start
    if isinstance(dataset, grain.IterDataset):
        part = lambda batch: jax.tree.map(lambda leaf: leaf[rows], batch)
        return iter(dataset.batch(size, drop_remainder=True).map(part))
    if not isinstance(dataset, grain.MapDataset):
        raise TypeError(
            f"grain_batches takes a grain MapDataset or IterDataset, not {type(dataset).__name__}: "
            "for arrays in memory use batches"
        )
    if len(dataset) < size:
        raise ValueError(f"grain_batches: {len(dataset)} elements are fewer than a batch of {size}")
    element = lambda j: dataset[j // local * size + rows.start + j % local]
    mine = grain.MapDataset.range(len(dataset) // size * local).map(element)
    ahead = grain.ReadOptions(num_threads=_AHEAD, prefetch_buffer_size=_AHEAD)
    return iter(mine.batch(local).to_iter_dataset(ahead))
