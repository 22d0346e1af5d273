"""Signals that ask a run to stop: the step is finished and saved before it does."""

import signal
import threading

import jax


class Interrupted(RuntimeError):
    """A signal stopped the run after its state was saved; the same call goes on from there.

    Attributes:
        step: number of the last step, which the checkpoint holds.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class StopRequest:
    """Remembers SIGTERM and SIGINT while it is entered, so that they do not cut a step or a save short.

    With `active` False it does nothing: a run that saves nothing has no reason to delay a signal. A second
    signal acts as it did before. Where `jax.distributed` runs, its own service holds SIGTERM and makes all
    processes stop after the same step; SIGINT is then left alone, and nothing here changes a handler.
    """

    def __init__(self, active: bool):
        self.active, self.name = active, None
        self._previous = {}

    def __enter__(self):
        # Python allows handlers in the main thread only.
        alone = not jax.distributed.is_initialized() and threading.current_thread() is threading.main_thread()
        if self.active and alone:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *error):
        self._restore()

    def reached(self, step: int) -> bool:
        """Says whether the run should stop after this step; to be asked after every step.

        Args:
            step: number of the step.

        Returns:
            True where a signal has come; with several processes, in all of them after the same step.
        """
        if self.active and jax.distributed.is_initialized():
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(step):
                self.name = "SIGTERM"
        return self.name is not None

    def _remember(self, number, frame):
        self.name = signal.Signals(number).name
        self._restore()

    def _restore(self):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
