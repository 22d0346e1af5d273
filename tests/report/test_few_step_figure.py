"""The figure of few-step rows: which lines it has, where their points are, and what it leaves out."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from pgm_jax.report import few_step_figure


def _case(sampler, nfe, kid, objective="denoising", D="inf", **more):
    return {
        "task": "chest",
        "model": f"{objective}-{D}",
        "objective": objective,
        "sampler": sampler,
        "D": D,
        "nfe": nfe,
        "s_per_image": 0.01 * nfe,
        "sigma": 0.3,
        "psnr": 24 + nfe,
        "kid": kid,
        "kid_low": kid - 1,
        "kid_high": kid + 2,
    } | more


def _drawn(cases, monkeypatch):
    kept = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (kept.append(self), save(self, *a, **k))[1])
    stream = io.BytesIO()
    few_step_figure(cases, stream)
    assert stream.getvalue().startswith(b"\x89PNG")
    return kept[0]


def test_lines_points_and_bars(monkeypatch):
    lost = dict.fromkeys(("kid", "kid_low", "kid_high"))
    cases = [
        _case("heun", 35, 1.0),
        _case("heun", 1, 500.0),
        _case("consistency", 1, 3.0, "ect", 64.0),
        _case("consistency", 2, 3.0, "ect", 64.0) | lost,
        _case("ctm", 2, -0.5, "ctm"),
    ]
    figure = _drawn(cases, monkeypatch)
    kid, psnr = figure.axes[0], figure.axes[2]
    assert psnr.get_xlabel().endswith("(NFE)") and figure.axes[3].get_xlabel() == "seconds for one image"
    assert kid.get_ylabel().startswith("KID") and psnr.get_ylabel() == "denoising PSNR in dB"
    assert (
        psnr.get_xscale() == "log"
        and [t.get_text() for t in psnr.get_xticklabels()] == "1 2 4 8 16 32".split()
    )
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["Heun, D = ∞", "PFCM (ECT), D = 64", "CTM, D = ∞"]
    heun, student, jumps = psnr.get_lines()
    np.testing.assert_array_equal(heun.get_xydata(), [[1, 25], [35, 59]])
    np.testing.assert_array_equal(student.get_xydata(), [[1, 25], [2, 26]])
    bars = [container[0].get_xydata().tolist() for container in kid.containers]
    assert bars == [[[1, 500], [35, 1]], [[1, 3]], [[2, -0.5]]]
    (segments,) = kid.containers[0][2]
    np.testing.assert_allclose(segments.get_segments()[0], [[1, 499], [1, 502]])
    # Sampler and objective by colour and marker, D by stroke and face.
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in (heun, student, jumps)}
    assert len(looks) == 3 and student.get_linestyle() != heun.get_linestyle() == jumps.get_linestyle()
    assert kid.get_ylim()[0] < -0.5


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="nothing to draw"):
        few_step_figure([], io.BytesIO())
