"""Endless iterators of batches over arrays in memory, sharded by process, resumed exactly.

An iterator gives dicts of NumPy arrays, this process's rows of the global batch, in the order in which
`parallel.shard_batch` joins them. Its state is a small dict for JSON, the same in every process, and does not
depend on their number.
"""

import math
from collections.abc import Callable, Sequence

import jax
import numpy as np


class Batches:
    """An endless iterator whose batch is a pure function of the number of samples that came before it.

    Attributes:
        size: rows of the global batch.
    """

    def __init__(self, draw: Callable, size: int, rows: slice, length: int):
        """Stores the rule.

        Args:
            draw: `(numbers) -> batch` for consecutive sample numbers (n,), counted from 0 over all epochs.
            size: rows of the global batch.
            rows: rows of this process.
            length: samples in an epoch.
        """
        self.size = size
        self._draw, self._rows, self._length, self._seen = draw, rows, length, 0

    def __iter__(self):
        return self

    def __next__(self) -> dict:
        batch = self._draw(np.arange(self._seen + self._rows.start, self._seen + self._rows.stop))
        self._seen += self.size
        return batch

    def get_state(self) -> dict:
        """Returns `{"epoch", "position"}`: whole epochs given so far, and samples of the present one."""
        epoch, position = divmod(self._seen, self._length)
        return {"epoch": epoch, "position": position}

    def set_state(self, state: dict) -> None:
        """Goes to a state, so that the next batch is the one that followed it.

        Args:
            state: what `get_state` returned, here or in a run with other processes.

        Raises:
            ValueError: if it is not such a state for this number of samples.
        """
        epoch, position = state.get("epoch", -1), state.get("position", -1)
        if epoch < 0 or not 0 <= position < self._length:
            raise ValueError(
                f"set_state: {state} is no state of an epoch of {self._length} samples: "
                "resume with the data of the first run"
            )
        self._seen = epoch * self._length + position


def batches(
    arrays: dict,
    size: int,
    *,
    seed: int,
    shuffle: bool = True,
    process_index: int | None = None,
    process_count: int | None = None,
    transform: Callable[[dict], dict] | None = None,
) -> Batches:
    """Iterates over arrays in memory, in a new order every epoch.

    Epoch e visits the samples in the order `default_rng((seed, e)).permutation(n)`. Epochs follow one another
    without a gap: a batch may end one and begin the next, so every sample comes once an epoch whatever the size.

    Args:
        arrays: nested dict of arrays (n, ...), such as `{"x0": images, "cond": {"class": labels}}`; memory
            maps are read batch by batch.
        size: rows of the global batch.
        seed: seed of the orders.
        shuffle: False keeps the order of the arrays.
        process_index: number of this process; by default `jax.process_index()`.
        process_count: number of processes; by default `jax.process_count()`.
        transform: `batch -> batch` on this process's rows, such as a change of dtype.

    Returns:
        `Batches`, an iterator of such dicts (size / process_count, ...).

    Raises:
        ValueError: if arrays are empty or of unequal length, or the processes do not divide the size.
    """
    lengths = {_name(path): _length(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)}
    if not lengths or 0 in lengths.values() or len(set(lengths.values())) > 1:
        raise ValueError(f"batches: arrays of {lengths or 'no'} samples: give equally many, at least one")
    length = next(iter(lengths.values()))
    rows = process_rows(size, process_index, process_count)
    order = {}

    def permutation(epoch):
        if epoch not in order:
            # A batch that crosses into the next epoch needs two orders at most at a time.
            while len(order) > 1:
                order.pop(next(iter(order)))
            order[epoch] = np.random.default_rng((seed, epoch)).permutation(length)
        return order[epoch]

    def draw(numbers):
        epochs, positions = np.divmod(numbers, length)
        index = positions
        if shuffle:
            index = np.concatenate(
                [permutation(e)[positions[epochs == e]] for e in np.unique(epochs).tolist()]
            )
        batch = jax.tree.map(lambda array: np.asarray(array[index]), arrays)
        return batch if transform is None else transform(batch)

    return Batches(draw, size, rows, length)


def patches(
    images: Sequence[np.ndarray],
    size: int,
    patch: Sequence[int],
    *,
    seed: int,
    weights=None,
    labels=None,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Batches:
    """Iterates over random patches of images of different sizes.

    Sample number g of the run is a pure function of (seed, g): step g of the Philox generator (Salmon et al. 2011)
    with this key draws an image by its weight, then a position in it, all being equally likely.

    Args:
        images: arrays (*spatial) or (*spatial, channel) of one dtype and channel count, such as slices.
        size: rows of the global batch.
        patch: spatial shape of a patch, such as (height, width).
        seed: seed of the draws, not negative.
        weights: (images,) relative chance of each image; by default all are the same.
        labels: (images,) integers, the class of each image, or None.
        process_index: number of this process; by default `jax.process_index()`.
        process_count: number of processes; by default `jax.process_count()`.

    Returns:
        `Batches`, an iterator of `{"x0": (size / process_count, *patch, channel)}`, with labels beside
        `"cond": {"class": (size / process_count,)}`; an epoch is as many samples as there are images.

    Raises:
        ValueError: if there is no image, one is smaller than the patch or of another kind than the first, the
            weights or labels do not fit, or the processes do not divide the size.
    """
    patch = tuple(patch)
    images = [_with_channel(image, patch) for image in images]
    kinds = {(image.dtype, image.shape[-1]) for image in images}
    if len(kinds) != 1:
        raise ValueError(f"patches: images of {len(kinds)} kinds of dtype and channels: give one kind")
    weights = np.ones(len(images)) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != (len(images),) or weights.min() < 0 or not 0 < weights.sum() < math.inf:
        raise ValueError(
            f"patches: weights {weights.shape} for {len(images)} images: give each one, 0 or more"
        )
    labels = None if labels is None else np.asarray(labels, np.int32)
    if labels is not None and labels.shape != (len(images),):
        raise ValueError(f"patches: labels {labels.shape} for {len(images)} images: give each one")
    bounds = np.cumsum(weights) / weights.sum()
    places = np.array([image.shape[:-1] for image in images]) - np.array(patch) + 1

    def draw(numbers):
        generator = np.random.Philox(key=seed)
        # One step of Philox gives four numbers, which is what one sample takes, whichever came before.
        generator.advance(int(numbers[0]))
        uniform = np.random.Generator(generator).random((len(numbers), 4))
        chosen = np.minimum(np.searchsorted(bounds, uniform[:, 0], side="right"), len(images) - 1)
        start = (uniform[:, 1 : 1 + len(patch)] * places[chosen]).astype(int)
        windows = (tuple(map(slice, first, first + patch)) for first in start)
        found = {"x0": np.stack([images[i][window] for i, window in zip(chosen, windows, strict=True)])}
        return found if labels is None else found | {"cond": {"class": labels[chosen]}}

    return Batches(draw, size, process_rows(size, process_index, process_count), len(images))


def process_rows(size: int, process_index: int | None = None, process_count: int | None = None) -> slice:
    """Finds the rows of the global batch that one process gives: the p-th of equal contiguous parts.

    Args:
        size: rows of the global batch.
        process_index: number of this process; by default `jax.process_index()`.
        process_count: number of processes; by default `jax.process_count()`.

    Returns:
        The slice.

    Raises:
        ValueError: if the processes do not divide the size, or the number is not one of theirs.
    """
    count = jax.process_count() if process_count is None else process_count
    index = jax.process_index() if process_index is None else process_index
    if count < 1 or not 0 <= index < count:
        raise ValueError(f"process {index} of {count}: give a process_index from 0 to process_count - 1")
    if size < 1 or size % count:
        raise ValueError(f"a batch of {size} rows does not divide over {count} processes: use a multiple")
    return slice(index * (size // count), (index + 1) * (size // count))


def _with_channel(image, patch):
    image = image[..., None] if image.ndim == len(patch) else image
    if not 1 <= len(patch) <= 3:
        raise ValueError(f"patches: patch {patch} must have one size for each of 1 to 3 spatial axes")
    if image.ndim != len(patch) + 1 or any(n < p or p < 1 for n, p in zip(image.shape, patch, strict=False)):
        raise ValueError(f"patches: cannot cut {patch} out of an image of shape {image.shape}: pad it first")
    return image


def _name(path):
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _length(path, leaf):
    if not getattr(leaf, "ndim", 0):
        raise ValueError(f"batches: {_name(path)} is not an array with a leading sample axis")
    return leaf.shape[0]
