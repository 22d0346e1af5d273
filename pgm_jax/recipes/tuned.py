"""The tuned numbers of a recipe, stored as JSON beside it."""

import json
from collections.abc import Callable
from importlib import resources


def tuned_settings(package: str, file: str, make: Callable, task):
    """Loads the tuned settings of a task.

    Args:
        package: the recipe's package.
        file: JSON file in it, `{"settings": {task: {field: value}}}`.
        make: the class of the settings.
        task: name of the task.

    Returns:
        What `make` returns of the stored fields.

    Raises:
        ValueError: for a task that was not tuned.
    """
    table = json.loads(resources.files(package).joinpath(file).read_text())["settings"]
    if str(task) not in table:
        raise ValueError(f"Tuned for {', '.join(table)}, not {task}: give Settings of your own.")
    return make(**table[str(task)])
