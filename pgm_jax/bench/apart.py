"""A peer in a process of its own: its threads and its memory are as its users have them, and so are ours."""

import contextlib
import functools
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

_SERVE = "from pgm_jax.bench.apart import serve; serve()"


class Party(NamedTuple):
    """What a peer can run.

    Attributes:
        runs: functions without arguments by name, each of which returns once its result exists.
        told: what else is to be known of it.
    """

    runs: dict[str, Callable[[], Any]] = {}
    told: Any = None


@contextlib.contextmanager
def party(build: Callable[..., Party], *arguments, asked: bool = True) -> Iterator[Party]:
    """Gives the runs of a peer for a while.

    On CPU they are made and called in a process of their own, which waits while none is called. Two frameworks in
    one process share a heap and spin in each other's way. Memory that a waiting process gave back is still faulted
    in anew by its first call after the other's: time a second one. On an accelerator, whose memory JAX holds for
    its process, the runs stay here.

    Args:
        build: function of a module, `(*arguments) -> Party`, whose `told` and results can be pickled.
        *arguments: its arguments, which can be pickled.
        asked: whether the peer is wanted.

    Yields:
        `Party`, of no runs where it is not.

    Raises:
        Exception: what `build` or a run raises, here.
        ChildProcessError: if the process ends by itself.
    """
    if not asked or jax.default_backend() != "cpu":
        yield build(*arguments) if asked else Party()
        return
    pipe, paths = subprocess.PIPE, {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _SERVE]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=os.environ | paths) as process:
        try:
            names, told = _asked(process, (build, arguments))
            yield Party({name: functools.partial(_asked, process, name) for name in names}, told)
        finally:
            process.kill()


def _asked(process, question):
    try:
        pickle.dump(question, process.stdin)
        process.stdin.flush()
        answer, error = pickle.load(process.stdout)
    except (BrokenPipeError, EOFError):
        raise ChildProcessError(
            f"the process of the peer ended with code {process.wait()}: out of memory? The lines above say more"
        ) from None
    if error is not None:
        raise error
    return answer


def serve():
    """Answers the questions of `party`, pickled in the standard input, in what was the standard output."""
    # Ctrl-C reaches both processes: the other one ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def answer(function):
        try:
            pair = function(), None
        except Exception as error:
            pair = None, error
        pickle.dump(pair, answers)
        answers.flush()

    runs = {}

    def begin():
        build, arguments = pickle.load(sys.stdin.buffer)
        made, told = build(*arguments)
        runs.update(made)
        return list(made), told

    answer(begin)
    with contextlib.suppress(EOFError):
        while True:
            name = pickle.load(sys.stdin.buffer)
            answer(lambda name=name: runs[name]())
