"""`pgm demo`: real brain slices from undersampled multi-coil k-space, with progress, a table and a figure."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.cli.files import writable, write_json
from pgm_jax.core import require
from pgm_jax.data import whole_file
from pgm_jax.recipes import mri
from pgm_jax.report import Panel, comparison_figure

SUBJECT = "colin27"
ACCELERATIONS = (4, 8)
# What is run, and the rows that its images give: (run, row of one image, row of the mean).
RUNS = (
    ("zero_filled", "zero_filled", None),
    ("cg_sense", "cg_sense", None),
    ("tv", "tv", None),
    ("dds", "dds_draw", "dds_mean"),
)
# The same network and number of training steps at D = inf.
TWIN = ("edm_dds", "edm_dds_draw", "edm_dds_mean")
_TITLES = {
    "zero_filled": "zero-filled",
    "cg_sense": "CG-SENSE",
    "tv": "TV",
    "dds_draw": "PFGM++ draw",
    "dds_mean": "PFGM++ mean",
}


def run_demo(out, slices=3, seed=0, twin=False) -> None:
    """Runs the demo and writes `demo.png` and `demo.json`.

    Args:
        out: folder to write to.
        slices: number of held-out slices.
        seed: seed of phase, noise and draws.
        twin: draw with the prior at D = inf as well.
    """
    out = Path(out)
    runs = (*RUNS, TWIN) if twin else RUNS
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: give a folder")
    console = require("rich.console", "cli").Console()
    require("matplotlib.figure", "viz")
    started = time.perf_counter()
    brain = mri.brain_slices(SUBJECT, slices, progress=console.print)
    writable(out / "demo.json")
    priors = mri.brain_priors(brain.magnitude.shape[1:], brain.spacing, like=brain.magnitude)
    console.print(
        f"{slices} slices of {SUBJECT}, {jax.devices()[0].platform}; "
        f"the prior is PFGM++ (D = {float(priors.dds.process.law.df):g}), trained on other people"
    )
    rows, pictures = [], {}
    with require("rich.progress", "cli").Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=len(ACCELERATIONS) * len(runs) * slices)
        for acceleration in ACCELERATIONS:
            scans = _scans(brain, acceleration, seed)
            for run in runs:
                tick = lambda text: progress.update(task, advance=1, description=text)
                new, shown = _run(run, acceleration, priors, scans, seed, tick)
                rows += new
                pictures.update({(acceleration, name): image for name, image in shown.items()})
            pictures[acceleration, "truth"] = np.asarray(scans[slices // 2].truth)
    console.print(_table(rows))
    with whole_file(out / "demo.png", overwrite=True) as picture:
        _figure(pictures, rows, brain, picture)
    write_json(out / "demo.json", {"setup": _setup(slices, seed, brain), "rows": rows})
    console.print(
        f"wrote {out / 'demo.png'} and {out / 'demo.json'} in {time.perf_counter() - started:.0f} s"
    )


def _scans(brain, acceleration, seed):
    keys = jax.random.split(jax.random.key(seed), len(brain.index))
    return [
        mri.undersampled_scan(key, jnp.asarray(magnitude), acceleration, mask_seed=seed)
        for key, magnitude in zip(keys, brain.magnitude, strict=True)
    ]


def _run(run, acceleration, priors, scans, seed, tick):
    """Compiles one method, runs it on every scan and scores it; compile and run are timed apart."""
    name, one_row, mean_row = run
    chosen = mri.settings(acceleration)
    key = jax.random.key(seed + 1)
    begun = time.perf_counter()
    program = jax.jit(mri.reconstruct(name, chosen)).lower(key, priors, scans[0]).compile()
    compile_seconds = time.perf_counter() - begun
    images, seconds = [], []
    for scan in scans:
        begun = time.perf_counter()
        images.append(jax.block_until_ready(program(key, priors, scan)))
        seconds.append(time.perf_counter() - begun)
        tick(f"{acceleration}x {name}")
    timing = {"seconds": float(np.median(seconds)), "compile_seconds": compile_seconds}
    nfe = mri.evaluations(name, chosen)
    middle = np.asarray(images[len(images) // 2])
    rows = [_row(acceleration, one_row, [x[0] for x in images], scans, nfe, timing)]
    shown = {one_row: middle[0]}
    if mean_row is not None:
        means = [jnp.mean(x, axis=0) for x in images]
        rows.append(_row(acceleration, mean_row, means, scans, nfe * chosen.draws, timing))
        shown |= {mean_row: middle.mean(axis=0), f"{name}_std": np.abs(middle).std(axis=0, ddof=1)}
    return rows, shown


def _row(acceleration, method, images, scans, nfe, timing):
    values = [mri.scores(image, scan.truth) for image, scan in zip(images, scans, strict=True)]
    mean = {key: float(np.mean([value[key] for value in values])) for key in values[0]}
    return {"acceleration": acceleration, "method": method, **mean, "nfe": nfe, **timing}


def _setup(slices, seed, brain):
    return {
        "subject": SUBJECT,
        "slices": [int(i) for i in brain.index[:slices]],
        "seed": seed,
        "coils": 4,
        "noise_std": 0.01,
        "centre_fraction": 0.08,
        "priors": {"dds": "brain-t1-pfgmpp", "edm_dds": "brain-t1-edm"},
        "settings": {str(a): mri.settings(a)._asdict() for a in ACCELERATIONS},
        "device": jax.devices()[0].device_kind,
        "seconds": "median a slice; draws of one slice run together",
    }


def _table(rows):
    table = require("rich.table", "cli").Table(box=None)
    for name in rows[0]:
        table.add_column(
            name.replace("_seconds", " s").replace("seconds", "run s"),
            justify="left" if name == "method" else "right",
        )
    for row in rows:
        table.add_row(
            *(
                f"{v:.3g}"
                if k in ("ssim", "nrmse", "seconds", "compile_seconds")
                else f"{v:.2f}"
                if k == "psnr"
                else str(v)
                for k, v in row.items()
            )
        )
    return table


def _figure(pictures, rows, brain, path):
    psnr = {(row["acceleration"], row["method"]): row["psnr"] for row in rows}
    lines = []
    for acceleration in ACCELERATIONS:
        crop = lambda image: np.abs(mri.unpad(image, brain.size))[..., 0]
        truth = crop(pictures[acceleration, "truth"])
        window = (0.0, float(truth.max()))
        line = [Panel(truth, "truth", window)]
        for method, title in _TITLES.items():
            text = f"{title}\n{psnr[acceleration, method]:.1f} dB"
            line.append(Panel(crop(pictures[acceleration, method]), text, window))
        spread = crop(pictures[acceleration, "dds_std"])
        line.append(Panel(spread, "PFGM++ std", (0.0, float(np.quantile(spread, 0.999))), "magma"))
        lines.append(line)
    comparison_figure(
        lines,
        path,
        [f"{a}x" for a in ACCELERATIONS],
        f"{SUBJECT}, slice {int(brain.index[len(brain.index) // 2])}: magnitude from 4-coil k-space "
        f"(PSNR: mean over {len(brain.index)} slices)",
        "Radiological display: anterior at the top, the patient's right at the left.",
    )
