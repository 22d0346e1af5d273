"""A figure of quality against evaluations of the network and against seconds."""

import numpy as np

from pgm_jax.core import require

# A teacher's sampler or a student's objective, in Okabe and Ito's colours, which colour-blind readers tell apart;
# markers say the same again.
_STYLES = {
    "ddim": ("DDIM", "#56B4E9", "o"),
    "dpmpp_2m": ("DPM-Solver++ 2M", "#0072B2", "s"),
    "heun": ("Heun", "#000000", "D"),
    "ect": ("ECT", "#D55E00", "^"),
    "ict": ("iCT", "#F0E442", "<"),
    "cd": ("consistency distillation", "#E69F00", ">"),
    "ctm": ("CTM", "#009E73", "v"),
}
_OTHER = ("#CC79A7", "P")
_LINES = ("-", "--", ":", "-.")
_KID, _PSNR = "KID of generated patches (lower is better)", "denoising PSNR in dB"


def few_step_figure(cases, path) -> None:
    """Draws KID (above) and denoising PSNR (below) against evaluations (left) and seconds an image (right).

    One line a prior, sampler and D; colour and marker say the sampler of a teacher and the objective of a student,
    the stroke D; ECT at finite D is a Poisson flow consistency model (PFCM). The KID's bars are its intervals; its
    axis is linear around 0, as far as the narrowest of them reaches, and logarithmic beyond. Values that are None
    are left out.

    Args:
        cases: dicts with `task`, `model`, `objective`, `sampler`, `D`, `nfe`, `s_per_image`, `sigma`, `psnr`,
            `kid`, `kid_low`, `kid_high`, as rows of `pgm bench fewstep` have them.
        path: file to write, of which the suffix chooses the format, or a binary file open for writing (PNG).

    Raises:
        ValueError: without cases.
        MissingExtra: without the `viz` extra.
    """
    if not cases:
        raise ValueError("there is nothing to draw: run `pgm bench fewstep` with at least one prior")
    figure_of = require("matplotlib.figure", "viz").Figure
    figure = figure_of(figsize=(10, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row", sharex="col")
    numbers = list(dict.fromkeys(str(case["D"]) for case in cases))
    for group in dict.fromkeys(_group(case) for case in cases):
        members = [case for case in cases if _group(case) == group]
        members.sort(key=lambda case: case["nfe"])
        look = _look(members[0], numbers)
        for column, against in enumerate(("nfe", "s_per_image")):
            _draw(axes[0, column], members, against, "kid", look)
            _draw(axes[1, column], members, against, "psnr", look)
    _label(axes, cases)
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    task, sigma = cases[0]["task"], cases[0]["sigma"]
    figure.suptitle(f"Few steps, {task}: generation, and denoising from sigma {sigma:g}", fontsize=11)
    figure.savefig(path, dpi=160)


def _group(case):
    return case["model"], case["objective"], case["sampler"], str(case["D"])


def _look(case, numbers):
    key = case["sampler"] if case["objective"] == "denoising" else case["objective"]
    name, colour, marker = _STYLES.get(key, (key, *_OTHER))
    finite = str(case["D"]) != "inf"
    law = f"D = {float(case['D']):g}" if finite else "D = ∞"
    name = "PFCM (ECT)" if finite and key == "ect" else name
    stroke = _LINES[numbers.index(str(case["D"])) % len(_LINES)]
    # Empty markers for every D but the first, for those who cannot see the stroke.
    face = colour if stroke == _LINES[0] else "white"
    return {
        "label": f"{name}, {law}",
        "color": colour,
        "marker": marker,
        "linestyle": stroke,
        "markerfacecolor": face,
        "markersize": 5,
        "linewidth": 1.4,
    }


def _draw(axis, members, against, measure, look):
    kept = [case for case in members if case[measure] is not None]
    x, y = (np.array([case[name] for case in kept], float) for name in (against, measure))
    if measure == "psnr":
        axis.plot(x, y, **look)
        return
    ends = np.array([[case["kid_low"], case["kid_high"]] for case in kept], float).reshape(-1, 2)
    axis.errorbar(x, y, np.abs(ends - y[:, None]).T, capsize=2.5, elinewidth=0.8, **look)


def _label(axes, cases):
    powers = [2**k for k in range(max(case["nfe"] for case in cases).bit_length())]
    for axis in axes.ravel():
        axis.grid(True, color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
    for axis in axes[:, 0]:
        axis.set_xscale("log", base=2)
        axis.set_xticks(powers, [str(power) for power in powers])
        axis.minorticks_off()
    axes[1, 0].set_xlabel("evaluations of the network for one image (NFE)")
    for axis in axes[:, 1]:
        axis.set_xscale("log")
    axes[1, 1].set_xlabel("seconds for one image")
    kept = [case for case in cases if case["kid"] is not None]
    # Differences below the narrowest interval are noise, which no decades are spent on.
    linear = max(1e-3, min((case["kid_high"] - case["kid"] for case in kept), default=1.0))
    axes[0, 0].set_yscale("symlog", linthresh=linear)
    axes[0, 0].set_ylim(bottom=min([0.0, *(case["kid"] for case in kept)]) - linear)
    axes[0, 0].set_ylabel(_KID)
    axes[1, 0].set_ylabel(_PSNR)
