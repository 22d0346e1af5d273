"""`pgm verify`: the exactness table with progress, printed and stored."""

from pgm_jax import verify
from pgm_jax.cli.files import write_json
from pgm_jax.core import require

_COLUMNS = ("process", "D", "sampler", "guidance", "prior", "operator", "steps")
_FIGURES = ("mean_err", "cov_err", "energy", "cover50", "cover90")


def run_verify(json=None, full=False, samples=1024) -> None:
    """Runs the table, prints it and stores it.

    Args:
        json: file for the rows, or None.
        full: every valid combination instead of the default subset.
        samples: draws a row.
    """
    if samples < 16:
        raise ValueError(f"verify needs at least 16 samples a row to estimate moments, got {samples}")
    progress_of = require("rich.progress", "cli")
    console = require("rich.console", "cli").Console()
    cases = verify.all_cases() if full else verify.default_cases()
    with progress_of.Progress(console=console, transient=True) as progress:
        task = progress.add_task("exactness table", total=len(cases))
        rows = verify.verify(
            cases, samples, progress=lambda done, total, row: progress.update(task, completed=done)
        )
    console.print(_table(rows))
    console.print(
        "mean_err in units of the posterior's root total variance, cov_err relative (Frobenius). "
        "* propagated exactly, without samples."
    )
    if json is not None:
        write_json(json, rows)
        console.print(f"wrote {json}")


def _table(rows):
    table = require("rich.table", "cli").Table(box=None)
    for name in (*_COLUMNS, *_FIGURES):
        table.add_column(
            name, justify="right" if name in _FIGURES or name == "steps" else "left", no_wrap=True
        )
    for row in rows:
        exact = "*" if row["exact_moments"] else ""
        named = [
            "inf" if row[name] is None else f"{row[name]:g}" if name == "D" else str(row[name])
            for name in _COLUMNS
        ]
        table.add_row(
            *named, *(f"{row[name]:.3f}{exact if name.endswith('err') else ''}" for name in _FIGURES)
        )
    return table
