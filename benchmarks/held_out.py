"""What the tables of held-out people share: scores, seconds a slice, coverage, options and the file."""

import argparse
import json
import time
from pathlib import Path
from statistics import NormalDist, median
from typing import NamedTuple

import jax
import numpy as np

from pgm_jax import metrics


class Intervals(NamedTuple):
    """Pixel-wise statements about images, stacked over slices, each (slices, height, width, 1) and real."""

    mean: np.ndarray
    std: np.ndarray
    truth: np.ndarray


def timed(run, scans):
    """Results of `run(number, scan)`, and the median of their seconds: the compilation is an outlier of it."""
    results, seconds = [], []
    for number, scan in enumerate(scans):
        begun = time.perf_counter()
        results.append(jax.block_until_ready(run(number, scan)))
        seconds.append(time.perf_counter() - begun)
    return results, round(median(seconds), 2)


def mean_scores(scores, images, scans):
    """Mean over slices of every entry of `scores(image, truth)`."""
    rows = [scores(image, scan.truth) for image, scan in zip(images, scans, strict=True)]
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def coverage(known, found, level, floor):
    """Percentage of pixels inside `mean +- factor std`: with a normal law's factor, and with the calibrated one.

    Args:
        known: `Intervals` of the people who calibrate.
        found: `Intervals` of the person who checks.
        level: share of pixels to cover.
        floor: pixels whose mean is above it count; the truth is not asked.
    """
    normal = NormalDist().inv_cdf((1 + level) / 2)
    calibrated = metrics.conformal_factor(*known, level, known.mean > floor)
    inside = lambda q: 100 * (1 - metrics.miscoverage(*found, q, found.mean > floor))
    return {
        "nominal": 100 * level,
        "normal law": round(float(inside(normal).mean()), 1),
        "calibrated": round(float(inside(calibrated).mean()), 1),
        "factor": round(calibrated, 3),
        "calibration slices": len(known.mean),
    }


def options(description, tasks, slices):
    """Parser of the options that every table has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", required=True, type=Path)
    parser.add_argument("--tasks", nargs="+", choices=list(tasks), default=list(tasks))
    parser.add_argument("--slices", type=int, default=slices)
    parser.add_argument("--long", action="store_true", help="fifty evaluations beside five hundred")
    parser.add_argument("--no-coverage", action="store_true", help="leave out the scans that calibrate")
    return parser


def write(path, tasks, table):
    """Adds `table(task)` of each task to a JSON file, after each task."""
    rows = json.loads(path.read_text()) if path.exists() else {}
    for task in tasks:
        rows[task] = table(task)
        path.write_text(json.dumps(rows, indent=1) + "\n")
