"""The verbs `train`, `sample` and `export` as tyro reads them. Like `main`, this imports no jax for `--help`."""

import argparse
import contextlib
import json
from pathlib import Path

from pgm_jax.recipes import prior_config
from pgm_jax.recipes.prior_config import PriorConfig


def training_verbs(tyro, argv) -> dict:
    """Builds the verbs; the options of `pgm train` have the values of its configuration file as defaults.

    Args:
        tyro: the module.
        argv: arguments of the command line.

    Returns:
        Dict from the verb's name to its function.

    Raises:
        ValueError: if a configuration file cannot be read.
    """
    start = _start(argv[1:]) if argv[:1] == ["train"] else PriorConfig()

    def train(
        prior: tyro.conf.OmitArgPrefixes[PriorConfig] = start,
        *,
        out: Path = Path("pgm-train"),
        config: Path | None = None,
        save_every: int = 1000,
        keep: int = 3,
        log_every: int = 50,
        sample_every: int = 1000,
        per_call: int = 8,
        distributed: str | None = None,
    ) -> None:
        """Train a prior on images, or go on with a run: `pgm train --data pycortex-s1 --shrink 4 --out run`.

        Args:
            out: folder of the run (config.json, checkpoints, metrics.jsonl, samples-STEP.png). Without --data and
                --config, the run that it holds goes on.
            config: configuration file (JSON), or folder of a run to copy it from; the options below override it.
            save_every: steps between checkpoints.
            keep: checkpoints to keep.
            log_every: steps between lines of metrics.jsonl.
            sample_every: steps between pictures of samples; 0 draws none.
            per_call: steps in one call of the compiled program; a signal waits for its end: 1 where steps are long.
            distributed: join other processes: auto (TPU pods, Slurm, Open MPI), or HOST:PORT,PROCESSES,NUMBER.
        """
        from pgm_jax.cli.train import run_train

        run_train(prior, out, save_every, keep, log_every, sample_every, distributed, per_call)

    return {"train": train, "sample": _sample_verb(tyro), "export": _export_verb(tyro)}


def _sample_verb(tyro):
    positional = tyro.conf.Positional

    def sample(
        source: positional[str],
        /,
        *,
        out: Path = Path("pgm-sample"),
        count: int = 16,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        batch: int = 64,
        average: str | None = None,
        step: int | None = None,
        process: str | None = None,
        D: float | None = None,
        label: str | None = None,
        guidance: float | None = None,
    ) -> None:
        """Draw images from a trained prior.

        Args:
            source: folder of a run of `pgm train`, name of a shipped prior, or file of `pgm export`.
            out: folder for samples.npy, samples.png and sample.json.
            count: number of images; image i is the same whatever the count.
            steps: steps of the sampler; None is 18, or 2 for a prior of few steps.
            sampler: heun, ddim or dpmpp_2m; None is heun, or what a prior of few steps was trained for.
            seed: seed of the draws.
            batch: largest number of images at a time.
            average: average of the weights, such as half_life_500; None is the first of the run.
            step: checkpoint to use; None is the latest.
            process: refuse a prior of another process.
            D: refuse a prior of another D.
            label: entry of the training's data whose class is drawn, for a prior trained with --classes.
            guidance: scale of the guidance by that class; None is 1, or the middle of those that lcd distilled.
        """
        from pgm_jax.cli.sample import Request, run_sample

        run_sample(
            Request(
                source, out, count, steps, sampler, seed, batch, average, step, process, D, label, guidance
            )
        )

    return sample


def _export_verb(tyro):
    positional = tyro.conf.Positional

    def export(
        source: positional[str],
        /,
        *,
        out: Path = Path("prior.npz"),
        average: str | None = None,
        step: int | None = None,
    ) -> None:
        """Write the weights of a run as one small file for `pgm_jax.load_prior` and `pgm sample`.

        Args:
            source: folder of a run of `pgm train`.
            out: the .npz file to write; weights are rounded to bfloat16.
            average: average of the weights; None is the first of the run.
            step: checkpoint to use; None is the latest.
        """
        from pgm_jax.cli.export import run_export

        run_export(source, out, average, step)

    return export


def option_rules(tyro) -> contextlib.AbstractContextManager:
    """Makes the context in which tyro reads a dict as `name=value` pairs.

    Args:
        tyro: the module.

    Returns:
        Context manager.
    """
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def pairs(info):
        if info.type is not dict:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="NAME=VALUE ...",
            instance_from_str=lambda words: dict(map(_pair, words)),
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda held: [f"{name}={_text(value)}" for name, value in held.items()],
        )

    return registry


def _start(argv):
    """Reads the file that `--config` names; without it and without `--data`, that of the run in `--out`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", nargs="?")
    parser.add_argument("--out", nargs="?", default="pgm-train")
    parser.add_argument("--data", nargs="*")
    given, _ = parser.parse_known_args(argv)
    if given.config is not None:
        return prior_config.read(given.config)
    if given.data is None and (Path(given.out or "") / "config.json").is_file():
        return prior_config.read(given.out)
    return PriorConfig()


def _pair(word):
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise ValueError(f"{word!r} is not NAME=VALUE, such as width=32")
    items = [_value(item) for item in value.strip(",[]").split(",") if item]
    return name, tuple(items) if "," in value or value.startswith("[") else items[0]


def _value(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(value):
    if isinstance(value, tuple):
        return ",".join(map(_text, value)) + ("," if len(value) == 1 else "")
    return value if isinstance(value, str) else json.dumps(value)
