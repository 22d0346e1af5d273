"""`pgm export`: the weights of a run as one small file."""

from pathlib import Path

from pgm_jax.cli.files import writable
from pgm_jax.cli.train import quiet_orbax
from pgm_jax.recipes import generation


def run_export(source, path, average=None, step=None) -> None:
    """Writes the weights of a run as one file that `pgm_jax.load_prior` and `pgm sample` read.

    Args:
        source: folder of the run.
        path: the `.npz` file to write.
        average: name of an average of the weights, or None.
        step: checkpoint, or None.

    Raises:
        ValueError: for a source that holds no run, a checkpoint that is missing or damaged, a file that does not
            end in .npz or cannot be written, or a network that is not preconditioned.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"--out {path}: give a file that ends in .npz")
    quiet_orbax()
    trained = generation.load_run(source, average=average, step=step)
    writable(path)
    generation.export(trained, path)
    size = path.stat().st_size / 1e6
    print(f"{path}: {trained.average} after {trained.step} steps, {size:.2f} MB in bfloat16")
