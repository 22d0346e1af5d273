"""`pgm verify`: the exactness table with progress, printed and stored."""

from pgm_jax import verify
from pgm_jax.cli.files import writable, write_json
from pgm_jax.core import require

# Printed columns, in a width at which no figure is cut; the JSON rows hold every field.
_FIGURES = {"mean_err": "mean", "cov_err": "cov", "energy": "energy", "cover50": "50 %", "cover90": "90 %"}
_WIDTH = 120


def run_verify(json=None, full=False, samples=1024, peers=False) -> None:
    """Runs the table, prints it and stores it.

    Args:
        json: file for the rows, or None.
        full: every valid combination instead of the default subset.
        samples: draws a row.
        peers: run diffusers, azula and deepinv too, those that are installed.
    """
    if samples < 16:
        raise ValueError(f"verify needs at least 16 samples a row to estimate moments, got {samples}")
    if json is not None:
        writable(json)
    progress_of = require("rich.progress", "cli")
    console_of = require("rich.console", "cli").Console
    console = console_of(width=max(console_of().width, _WIDTH))
    cases = verify.all_cases() if full else verify.default_cases()
    with progress_of.Progress(console=console, transient=True) as progress:
        task = progress.add_task("exactness table", total=len(cases))
        rows = verify.verify(
            cases, samples, progress=lambda done, total, row: progress.update(task, completed=done)
        )
    console.print(_table(rows))
    console.print(
        "mean: error in units of the posterior's root total variance; cov: relative error (Frobenius); energy "
        "distance;\ncover of the nominal 50 % and 90 % intervals. * propagated exactly, without samples."
    )
    rows += _run_peers(console, progress_of, rows, samples) if peers else []
    if json is not None:
        write_json(json, rows)
        console.print(f"wrote {json}")


def _run_peers(console, progress_of, ours, samples):
    with progress_of.Progress(console=console, transient=True) as progress:
        task = progress.add_task("other libraries", total=len(verify.PEERS))
        rows, missing = verify.verify_peers(
            samples=samples, progress=lambda done, total: progress.update(task, completed=done)
        )
    if rows:
        console.print(_peer_table(ours, rows, samples))
        console.print(
            "exact denoiser, Gaussian prior, dense operator; MC: what as many exact draws would show, 0 where "
            "moments are\npropagated. Process and grid are ours where a library lets its user choose them."
        )
    for line in missing:
        console.print(line)
    return rows


def _peer_table(ours, rows, samples):
    """Each row of ours on the same problem, and the rows of other libraries under it."""
    table = require("rich.table", "cli").Table(box=None)
    figures = ("mean", "MC", "cov", "MC", *list(_FIGURES.values())[2:])
    for name in ("guidance", "library", "process", "sampler", "steps", *figures):
        right = name in ("steps", *figures)
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for guidance in dict.fromkeys(row["guidance"] for row in rows):
        found = [row for row in rows if row["guidance"] == guidance]
        mine = [row | _floors(row, samples) for row in ours if _beside(row, found[0])]
        for row in mine + found:
            table.add_row(guidance, *_peer_cells(row))
    return table


def _beside(row, theirs):
    names = ("guidance", "prior", "operator", "steps", "D")
    return row["process"] == "EDM" and all(row[name] == theirs[name] for name in names)


def _floors(row, samples):
    if row["exact_moments"]:
        return {"mean_mc": 0.0, "cov_mc": 0.0}
    given = verify.problem(row["prior"], "dense")
    truth = given.prior if row["guidance"] == "none" else given.posterior
    return dict(zip(("mean_mc", "cov_mc"), verify.monte_carlo_errors(truth, samples), strict=True))


def _peer_cells(row):
    names = ("mean_err", "mean_mc", "cov_err", "cov_mc", *list(_FIGURES)[2:])
    return (
        row["library"],
        row["process"],
        row["sampler"],
        str(row["steps"]),
        *(f"{row[n]:.3f}" for n in names),
    )


def _table(rows):
    table = require("rich.table", "cli").Table(box=None)
    for name in ("process", "sampler", "guidance", "problem", "steps", *_FIGURES.values()):
        table.add_column(
            name, justify="right" if name in (*_FIGURES.values(), "steps") else "left", no_wrap=True
        )
    for row in rows:
        exact = "*" if row["exact_moments"] else ""
        process = row["process"] if row["D"] is None else f"{row['process']} {row['D']:g}"
        problem = f"{row['prior']}, {row['operator']}"
        figures = (f"{row[name]:.3f}{exact if name.endswith('err') else ''}" for name in _FIGURES)
        table.add_row(process, row["sampler"], row["guidance"], problem, str(row["steps"]), *figures)
    return table
