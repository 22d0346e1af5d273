"""Optional dependencies: imported inside the function that needs them, named when missing."""

import importlib


class MissingExtra(ImportError):
    """An optional dependency is not installed; the message holds the pip line that installs it."""


def require(module: str, extra: str):
    """Imports an optional dependency.

    Args:
        module: dotted module name, such as `"matplotlib.pyplot"`.
        extra: the extra of this package that installs it, such as `"viz"`.

    Returns:
        The module.

    Raises:
        MissingExtra: if it is not installed, with the line `pip install "pgm_jax[extra]"`.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise MissingExtra(f'{missing} is not installed: run  pip install "pgm_jax[{extra}]"') from error
