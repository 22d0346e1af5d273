"""Physics-inspired generative models and the physics of CT, MRI and PET, in JAX.

Rooms are imported on first use, so `import pgm_jax` costs little more than `import jax`:

    import pgm_jax as pgm
    process = pgm.processes.PFGMpp(D=128)
"""

import importlib

__version__ = "0.1.0"

_ROOMS = (
    "bench",
    "cli",
    "core",
    "data",
    "guidance",
    "metrics",
    "networks",
    "operators",
    "parallel",
    "priors",
    "processes",
    "recipes",
    "reconstruction",
    "report",
    "samplers",
    "training",
    "verify",
)


def __getattr__(name):
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "load_prior":
        return importlib.import_module(f"{__name__}.priors").load_prior
    raise AttributeError(f"module 'pgm_jax' has no attribute {name!r}; its rooms are {', '.join(_ROOMS)}")


def __dir__():
    return sorted([*globals(), *_ROOMS, "load_prior"])
