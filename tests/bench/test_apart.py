"""The peer's process: its runs and errors come back here, and its death is one line."""

import os

import pytest

from pgm_jax.bench.apart import Party, party


def counting(start):
    calls = [start]

    def count():
        print("a peer may print")
        calls[0] += 1
        return calls[0], os.getpid()

    return Party({"count": count, "die": lambda: os._exit(3), "fail": _fail}, {"start": start})


def _fail():
    raise ArithmeticError("the networks differ")


def refusing():
    raise ValueError("no such case")


def test_runs_keep_their_state_in_another_process():
    with party(counting, 5) as peer:
        assert peer.told == {"start": 5} and list(peer.runs) == ["count", "die", "fail"]
        (first, there), (second, again) = peer.runs["count"](), peer.runs["count"]()
        assert (first, second) == (6, 7) and there == again != os.getpid()
        with pytest.raises(ArithmeticError, match="the networks differ"):
            peer.runs["fail"]()
        assert peer.runs["count"]()[0] == 8
        with pytest.raises(ChildProcessError, match="ended with code 3"):
            peer.runs["die"]()


def test_an_error_of_the_build_is_raised_here():
    with pytest.raises(ValueError, match="no such case"), party(refusing):
        pytest.fail("there is no party")


def test_no_peer_that_was_not_asked_for():
    with party(refusing, asked=False) as peer:
        assert peer == Party()
