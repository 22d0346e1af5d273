"""`pgm verify`: the exactness table with progress, printed and stored."""

from pgm_jax import verify
from pgm_jax.cli.files import writable, write_json
from pgm_jax.core import require

# Printed columns, in a width at which no figure is cut; the JSON rows hold every field.
_FIGURES = {"mean_err": "mean", "cov_err": "cov", "energy": "energy", "cover50": "50 %", "cover90": "90 %"}
_WIDTH = 120


def run_verify(json=None, full=False, samples=1024) -> None:
    """Runs the table, prints it and stores it.

    Args:
        json: file for the rows, or None.
        full: every valid combination instead of the default subset.
        samples: draws a row.
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
    if json is not None:
        write_json(json, rows)
        console.print(f"wrote {json}")


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
