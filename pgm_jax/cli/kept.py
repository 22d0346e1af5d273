"""Finished slices of `pgm reconstruct --prior`, kept until all are done."""

import hashlib
import json
import shutil

import jax
import numpy as np

from pgm_jax.data import whole_file


class Kept:
    """Finished slices of a request, told apart by everything that changes the numbers."""

    def __init__(self, request, steps, scale, starts, prior):
        # The first images stand for the data and the geometry.
        told = hashlib.sha256(json.dumps([request.method, steps, scale, *request.prior, prior.text]).encode())
        for array in (*starts, *jax.tree.leaves(prior.params)):
            told.update(np.asarray(array).tobytes())
        self.root = request.out / ".parts"
        self.folder = self.root / told.hexdigest()[:16]

    def has(self, number):
        return self._path(number).exists()

    def load(self, number):
        if not self.has(number):
            return None
        with np.load(self._path(number), allow_pickle=False) as arrays:
            return [arrays["mean"], arrays["std"]]

    def save(self, number, found):
        with whole_file(self._path(number), overwrite=True) as out:
            np.savez(out, mean=found[0], std=found[1])

    def _path(self, number):
        return self.folder / f"{number:05d}.npz"

    def clear(self):
        shutil.rmtree(self.root, ignore_errors=True)
