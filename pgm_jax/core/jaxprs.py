"""What a traced program holds inside its equations."""

from jax.extend.core import ClosedJaxpr, Jaxpr


def inner_jaxprs(values):
    """Yields the jaxprs among the parameters of an equation: bodies of loops, branches, jitted functions.

    Args:
        values: the parameters, `equation.params.values()`.

    Yields:
        `Jaxpr`s, not those inside them.
    """
    for value in values:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from inner_jaxprs(value)
