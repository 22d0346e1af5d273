"""From files and named data sets to the scaled slices that a prior is trained on."""

import dataclasses
import difflib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax import data
from pgm_jax.core import sample_key
from pgm_jax.processes import suggest
from pgm_jax.recipes.prior_config import MEASURED, PriorConfig

# Images on which noise levels are measured.
_MEASURED_ON = 256
# After scaling, the 99.5th percentile of a volume lies here, or the window belongs to other data.
_USUAL = (0.05, 20.0)


class Slices(list):
    """Slices of a configuration, with the number of the entry of its `data` that each is of.

    Attributes:
        entries: (n,) int32.
    """

    def __init__(self, slices, entries):
        super().__init__(slices)
        self.entries = np.asarray(entries, np.int32)


def read_images(config: PriorConfig, progress: Callable[[str], None] | None = None) -> Slices:
    """Reads the data of a configuration: axial slices with enough anatomy, scaled, shrunk and framed.

    Args:
        config: the configuration.
        progress: called with one line where something is downloaded.

    Returns:
        `Slices` (height, width, channel), float32 or complex64: all of `config.size` where framing is "whole", at
        least of that size where it is "patches".

    Raises:
        DataError: for a name or file that does not exist or cannot be read; another number of channels or units;
            constant data, or values unlike the window; complex data where the configuration is real.
    """
    volumes = [_volume(entry, progress) for entry in config.data]
    units = {volume.units: volume.name for volume in volumes}
    if len(units) > 1:
        held = ", ".join(f"{name} in {unit}" for unit, name in units.items())
        raise data.DataError(f"data of different units ({held}): train on one kind")
    parts = [_slices(volume, config) for volume in volumes]
    entries = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return Slices([image for part in parts for image in part], entries)


def image_batches(config: PriorConfig, images) -> data.Batches:
    """Iterates over batches of a run, in an order that the seed fixes.

    Args:
        config: the configuration.
        images: what `read_images` returned.

    Returns:
        Iterator of `{"x0": (batch, *size, channels)}`, with `"cond": {"class": (batch,)}` for a prior of classes.

    Raises:
        ValueError: if the processes do not divide the batch, or images of a prior of classes are not `Slices`.
    """
    labels = None
    if config.classes:
        labels = getattr(images, "entries", None)
        if labels is None:
            raise ValueError(
                "classes needs to know of which entry of data an image is: pass what read_images returns"
            )
    if config.framing == "patches":
        return data.patches(images, config.batch, config.size, seed=config.seed, labels=labels)
    told = {} if labels is None else {"cond": {"class": labels}}
    return data.batches({"x0": np.stack(images)} | told, config.batch, seed=config.seed)


def measured(config: PriorConfig, images) -> PriorConfig:
    """Fills in the noise levels that the configuration leaves open, by `processes.suggest` on its own images.

    Args:
        config: the configuration.
        images: what `read_images` returned.

    Returns:
        The configuration with numbers of four digits in the fields `MEASURED`.

    Raises:
        ValueError: for fewer than two images, or images that are all alike.
    """
    if all(getattr(config, name) is not None for name in MEASURED):
        return config
    if config.framing == "patches":
        # Every process measures on the same patches.
        alone = {"process_index": 0, "process_count": 1}
        shown = next(data.patches(images, _MEASURED_ON, config.size, seed=config.seed + 1, **alone))["x0"]
    else:
        chosen = np.linspace(0, len(images) - 1, min(len(images), _MEASURED_ON)).astype(int)
        shown = np.stack([images[i] for i in chosen])
    if len(shown) < 2:
        raise ValueError(
            "noise levels cannot be measured on one image: add data, use framing patches, or give "
            + ", ".join(MEASURED)
        )
    if config.complex:
        phase, key = data.smooth_phase(), jax.random.key(config.seed)
        one = lambda index, x: phase(sample_key(key, index), x)
        shown = np.asarray(jax.vmap(one)(jnp.arange(len(shown)), shown))
    found = suggest(shown)
    values = {
        "level_mean": found.P_mean,
        "level_std": found.P_std,
        "sigma_data": found.sigma_data,
        "sigma_min": found.sigma_min,
        "sigma_max": found.sigma_max,
    }
    # Four digits are the same on every machine.
    empty = {name: float(f"{values[name]:.4g}") for name in MEASURED if getattr(config, name) is None}
    return dataclasses.replace(config, **empty)


def _volume(entry, progress):
    if entry in data.PHANTOMS or entry in data.names():
        return data.load(entry, progress=progress)
    if Path(entry).suffix or Path(entry).exists() or Path(entry).name != entry:
        return data.read(Path(entry).expanduser())
    near = difflib.get_close_matches(entry, [*data.names(), *data.PHANTOMS], 1)
    hint = f"; did you mean {near[0]}?" if near else "; `pgm data list` shows the names"
    raise data.DataError(f"{entry!r} is neither a named data set nor a file{hint}")


def _slices(volume, config):
    channels = volume.array.shape[-1]
    if channels != config.channels:
        raise data.DataError(
            f"{volume.name} has {channels} channels and the configuration {config.channels}: "
            f"set channels {channels}, or save one channel alone"
        )
    if np.iscomplexobj(volume.array) and not config.complex:
        raise data.DataError(
            f"{volume.name} is complex and the configuration real: set complex, or save magnitudes"
        )
    volume = volume._replace(array=_scaled(volume, config.window))
    planes = volume.array[data.axial_slices(volume, config.min_anatomy)]
    planes = _shrunk(planes, config.shrink, volume.name)
    shape = config.size
    if config.framing == "patches":
        shape = tuple(np.maximum(config.size, planes.shape[1:3]).tolist())
    fill = 0.0 if np.iscomplexobj(planes) else float(volume.array.min())
    return list(data.pad_or_crop(planes, shape, fill))


def _scaled(volume, window):
    magnitude = np.abs(volume.array) if np.iscomplexobj(volume.array) else volume.array
    least, usual, most = (float(v) for v in np.percentile(magnitude, (0, 99.5, 100)))
    if least == most:
        raise data.DataError(
            f"{volume.name}: every pixel is {least:g}, so there is nothing to learn: check the file"
        )
    if window is None and volume.units == "HU":
        raise data.DataError(
            f"{volume.name} is in HU: give the window of values that become 0 and 1, such as -1024 1000"
        )
    low, high = (0.0, usual) if window is None else window
    scaled = (usual - low) / (high - low) if high > low else 0.0
    if not _USUAL[0] <= scaled <= _USUAL[1]:
        raise data.DataError(
            f"{volume.name}: its values, {least:.4g} to {most:.4g} with 99.5 % below {usual:.4g}, do not fit the "
            f"window {low:.4g} to {high:.4g}: give a window that they fill"
        )
    return ((volume.array - low) / (high - low)).astype(volume.array.dtype)


def _shrunk(planes, side, name):
    height, width = (n // side for n in planes.shape[1:3])
    if min(height, width) < 1:
        raise data.DataError(
            f"{name}: slices of {planes.shape[1:3]} pixels cannot be shrunk {side} times: use less"
        )
    kept = planes[:, : height * side, : width * side]
    blocks = kept.reshape(len(planes), height, side, width, side, planes.shape[-1])
    return blocks.mean(axis=(2, 4), dtype=planes.dtype)
