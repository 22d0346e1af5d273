"""Floating-point operations: by formula from the traced program, and the peak of a device."""

import math
from collections.abc import Callable

import jax

from pgm_jax.core.jaxprs import inner_jaxprs

# Dense FLOP/s of one device (vendors' data sheets; H100 and A100 as SXM). float32 is what JAX's default precision
# runs on: TF32 on NVIDIA, one bfloat16 pass on TPU. A device is found by the first name that its kind contains.
_PEAKS = (
    ("H100", {"bfloat16": 989.4e12, "float32": 494.7e12}),
    ("H200", {"bfloat16": 989.4e12, "float32": 494.7e12}),
    ("A100", {"bfloat16": 312e12, "float32": 156e12}),
    ("TPU v4", {"bfloat16": 275e12, "float32": 275e12}),
    ("TPU v5 lite", {"bfloat16": 197e12, "float32": 197e12}),
    ("TPU v5e", {"bfloat16": 197e12, "float32": 197e12}),
    ("TPU v5", {"bfloat16": 459e12, "float32": 459e12}),
    ("TPU v6", {"bfloat16": 918e12, "float32": 918e12}),
)


# Primitives of `networks`: convolutions and products of an image, and the kernel's gradient from two images.
_CONVOLUTIONS, _OF_TWO_IMAGES = ("winograd", "formed_conv", "tall_product"), {"winograd_kernel": 9}


def count_flops(function: Callable, *arguments) -> float:
    """Counts the operations of the convolutions and matrix products of a function, a multiply-add as two.

    Convolution: `2 outputs (kernel places) (input channels of a group)`, places beyond the border included and
    the zeros of a dilated input left out, also where it is computed in Winograd's form. Product:
    `2 outputs (contracted size)`. The body of a scan counts `length` times, of the branches of a conditional the
    dearest, and the body of a while loop, whose number of turns is not known, once. Recomputation by
    `jax.checkpoint` counts, as it is run.

    Args:
        function: function of arrays.
        *arguments: arrays or `jax.ShapeDtypeStruct`s; nothing is computed.

    Returns:
        Number of operations over all devices.
    """
    return float(_of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr))


def program_flops(compiled) -> float | None:
    """Returns the operations that XLA counts in a compiled program, those between elements included.

    XLA counts the body of a loop once, and the program of one device.

    Args:
        compiled: result of `jax.jit(f).lower(...).compile()`.

    Returns:
        Number of operations, or None where the backend does not say.
    """
    flops = (compiled.cost_analysis() or {}).get("flops")
    return None if flops is None or not flops > 0 else float(flops)


def peak_flops(kind: str, dtype: str) -> float | None:
    """Looks up the peak FLOP/s of a device.

    Args:
        kind: `jax.Device.device_kind`, such as "NVIDIA H100 80GB HBM3".
        dtype: "float32" or "bfloat16".

    Returns:
        FLOP/s, or None where the table does not hold it (CPUs).
    """
    return next((peaks.get(dtype) for name, peaks in _PEAKS if name in kind), None)


def mfu(flops, seconds, kind: str, dtype: str, devices: int = 1) -> float | None:
    """Returns the model FLOP utilisation, `flops / (seconds devices peak)`.

    Args:
        flops: operations of a run over all devices, or None.
        seconds: seconds of the run.
        kind: `jax.Device.device_kind`.
        dtype: "float32" or "bfloat16".
        devices: number of devices.

    Returns:
        Share of the peak, or None where it or the operations are not known.
    """
    peak = peak_flops(kind, dtype)
    return None if peak is None or flops is None else flops / (seconds * devices * peak)


def _of_jaxpr(jaxpr):
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation):
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        return _of_conv(equation)
    if name in _CONVOLUTIONS or name in _OF_TWO_IMAGES:
        x, other = (variable.aval.shape for variable in equation.invars)
        places = _OF_TWO_IMAGES.get(name) or math.prod(other[:-2])
        return 2 * places * math.prod(x) * other[-1]
    if name == "dot_general":
        contracted = params["dimension_numbers"][0][0]
        size = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * math.prod(equation.outvars[0].aval.shape) * size
    inner = [_of_jaxpr(jaxpr) for jaxpr in inner_jaxprs(params.values())]
    if name == "cond":
        return max(inner, default=0)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _of_conv(equation):
    params = equation.params
    kernel = equation.invars[1].aval.shape
    outputs = math.prod(equation.outvars[0].aval.shape)
    a_output = math.prod(kernel) // kernel[params["dimension_numbers"].rhs_spec[0]]
    return 2 * outputs * a_output / math.prod(params["lhs_dilation"])
