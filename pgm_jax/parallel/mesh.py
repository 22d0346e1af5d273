"""The device mesh: three named axes, of which any may have size one."""

import math

import jax
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "model")


def make_mesh(data: int | None = None, fsdp: int = 1, model: int = 1, devices=None) -> Mesh:
    """Builds the mesh `(data, fsdp, model)` over the devices.

    A batch is split over `data` and `fsdp` together; parameters may be split over `fsdp` and `model` by the
    rules of `shardings`. The axes are `AxisType.Auto`: the compiler propagates shardings, so no network,
    sampler or operator has to name an axis.

    Args:
        data: size of the data axis; by default all devices that the other two axes leave.
        fsdp: size of the axis that splits both the batch and large parameters.
        model: size of the axis that splits parameters only.
        devices: devices to use; by default all of them, of every process.

    Returns:
        A `jax.sharding.Mesh` with axes `("data", "fsdp", "model")`.

    Raises:
        ValueError: if a size is below one, or the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    count = len(devices)
    given = {"data": data, "fsdp": fsdp, "model": model}
    for name, size in given.items():
        if size is not None and size < 1:
            raise ValueError(f"mesh axis {name} has size {size}; sizes are at least 1")
    if data is None:
        if count % (fsdp * model):
            raise ValueError(
                f"fsdp={fsdp} times model={model} does not divide the {count} devices; "
                f"choose sizes whose product divides {count}"
            )
        data = count // (fsdp * model)
    sizes = (data, fsdp, model)
    if math.prod(sizes) != count:
        raise ValueError(
            f"a mesh of data={data}, fsdp={fsdp}, model={model} needs {math.prod(sizes)} devices and there "
            f"are {count}; leave out data= to use all, or pass devices=jax.devices()[:{math.prod(sizes)}]"
        )
    # jax.make_mesh defaults to Explicit axes, which change the meaning of ordinary array code.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)
