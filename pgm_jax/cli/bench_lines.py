"""What `pgm bench` prints of a row."""


def row_line(row) -> str:
    """Says what a row measured.

    Args:
        row: `bench.Row`.

    Returns:
        One line.
    """
    lines = {
        "sampling": _network_line,
        "training": _network_line,
        "posterior": _posterior_line,
        "fewstep": _few_step_line,
    }
    parts = [lines.get(row.name, _operator_line)(row)]
    parts.append(f"run {1e3 * row.run_s:.3g} ms, compile {row.compile_s:.3g} s")
    if row.flops is not None:
        parts.append(f", {row.flops / 1e9:.4g} GFLOP ({row.flops / row.run_s / 1e9:.3g} GFLOP/s)")
    if row.mfu is not None:
        parts.append(f", {100 * row.mfu:.1f} % of the peak")
    if row.ratio is not None:
        parts.append(f"; {row.peer} {1e3 * row.peer_run_s:.3g} ms, ratio {row.ratio:.2f}")
    return " ".join(parts).replace(" ,", ",").replace(" ;", ";")


def _network_line(row):
    case = row.case
    what = " ".join([row.name, case["network"], *([case["sampler"]] if "sampler" in case else [])])
    return (
        f"{what} {case['size']} px, batch {case['batch']}, {row.dtype}, {case['devices']} x {row.device}: "
        f"{case['images_per_s']:.3g} images/s, {case['steps_per_s']:.3g} steps/s,"
    )


def _posterior_line(row):
    case = row.case
    note = "" if case["note"] is None else f" ({case['note']})"
    return (
        f"{case['method']} {case['modality']} {case['size']} px, {case['slices']} slices, {case['evaluations']} "
        f"evaluations: {case['s_per_slice']:.3g} s/slice, {case['s_per_volume']:.3g} s/volume, physics "
        f"{case['physics_s_per_slice']:.3g} s/slice ({100 * case['physics_share']:.0f} %), PSNR "
        f"{case['psnr']:.1f} dB, {row.peak_bytes / 2**20:.0f} MiB{note},"
    )


def _few_step_line(row):
    case = row.case
    shown = lambda name: "not finite" if case[name] is None else f"{case[name]:.3g}"
    quality = "not finite" if case["psnr"] is None else f"{case['psnr']:.2f} dB"
    return (
        f"fewstep {case['model']} ({case['objective']}, D = {case['D']}) {case['sampler']}, {case['nfe']} "
        f"evaluations: PSNR {quality} from sigma {case['sigma']:g}, KID {shown('kid')} [{shown('kid_low')}, "
        f"{shown('kid_high')}], {case['images_per_s']:.3g} images/s,"
    )


def _operator_line(row):
    case = row.case
    if row.name == "nufft":
        return (
            f"nufft {case['size']} px, {case['samples']} samples, width {case['width']}, {case['direction']}:"
        )
    return (
        f"{case['geometry']} {case['footprint']} {case['direction']} {case['size']} px, {case['views']} views x "
        f"{case['bins']} bins, slices {case['slices']}: {case['projections_per_s']:.4g} projections/s, "
        f"{case['gups']:.3g} GUPS,"
    )
