"""One record that says in which dtype parameters, network bodies and results are kept."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Precision(NamedTuple):
    """Dtypes of a network: parameters, the compute inside its body, and what it returns.

    Norms, losses, schedules and sampler states stay in float32 whatever is chosen here.

    Attributes:
        param: dtype of stored parameters.
        compute: dtype of activations inside the network body.
        output: dtype of what the network returns.
    """

    param: jnp.dtype = jnp.float32
    compute: jnp.dtype = jnp.float32
    output: jnp.dtype = jnp.float32

    def cast(self, tree, kind: str):
        """Casts the floating leaves of `tree` to the dtype named `kind` ("param", "compute" or "output").

        Integer, boolean, complex and key leaves are left alone.
        """
        dtype = getattr(self, kind)

        def leaf(x):
            floating = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)
            return x.astype(dtype) if floating else x

        return jax.tree.map(leaf, tree)


FULL = Precision()
MIXED = Precision(compute=jnp.bfloat16)
