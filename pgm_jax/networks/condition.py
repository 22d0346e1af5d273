"""The conditioning entries of a network: image, class, vector and tokens, each of which may be absent.

    image    (b, *spatial, k)  joined to the input unscaled, with one more channel: 1 if present, 0 if absent
    present  (b,)              0 or 1, multiplies the image and its channel (condition dropout)
    class    (b,) integers     looked up; the index `classes` is the learned "none", which absence means too
    vector   (b, k)            mapped linearly, with a bias that tells zeros from absence
    tokens   (b, n, d)         looked at by cross-attention, beside one learned token that is always there
    token_mask  (b, n)         0 or False where a token is not looked at

A network is built for some of them (`Conditions`); a key of `cond` beyond these raises at trace time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from pgm_jax.core.precision import FULL
from pgm_jax.networks.layers import Linear


class Conditions(NamedTuple):
    """Which conditions a network takes, by size; 0 is none.

    Attributes:
        image: channels of the conditioning image (real ones: a complex image of c channels counts 2c).
        classes: number of classes, without the null class.
        vector: size of the conditioning vector.
        tokens: channels of the conditioning tokens.
    """

    image: int = 0
    classes: int = 0
    vector: int = 0
    tokens: int = 0

    def keys(self):
        """Returns the keys of `cond` that the network reads."""
        entries = {
            "image": ("image", "present"),
            "classes": ("class",),
            "vector": ("vector",),
            "tokens": ("tokens", "token_mask"),
        }
        return tuple(key for name, keys in entries.items() if getattr(self, name) for key in keys)

    def input_channels(self, channels):
        """Returns the channels of the network's input once the conditioning image is joined."""
        return channels + (self.image + 1 if self.image else 0)


class Conditioned(NamedTuple):
    """What a network reads: the joined input, the embedding of class and vector, and the tokens.

    Attributes:
        x: (b, *spatial, input_channels).
        embedding: (b, features), to be added to the embedding of time; zeros without class and vector.
        tokens: (b, 1 + n, d) with the learned token first, or None for a network without tokens.
        mask: (b, 1 + n) bool, or None.
    """

    x: jax.Array
    embedding: jax.Array
    tokens: jax.Array | None
    mask: jax.Array | None


class Conditioning(nnx.Module):
    """Reads `cond`. Parameters, where built for: table (classes + 1, features), vector (a `Linear`), token (d,).

    Args:
        conditions: `Conditions`.
        features: size of the embedding.
        rngs: `nnx.Rngs`.
        precision: dtypes of the parameters and the result.
    """

    def __init__(self, conditions, features, rngs, *, precision=FULL):
        self.conditions, self.features, self.precision = conditions, features, precision
        normal = lambda shape, std: nnx.Param(std * jax.random.normal(rngs.params(), shape, precision.param))
        if conditions.classes:
            # As large as the embedding of time: classes are told apart from the first steps on (ADM).
            self.table = normal((conditions.classes + 1, features), 1.0)
        if conditions.vector:
            self.vector = Linear(conditions.vector, features, rngs, precision=precision)
        if conditions.tokens:
            self.token = normal((conditions.tokens,), 0.02)

    def __call__(self, x, cond=None):
        """Returns the `Conditioned` of x (b, *spatial, c) and cond; raises ValueError for a wrong cond."""
        cond = {} if cond is None else cond
        check(self.conditions, cond, x)
        dtype = self.precision.compute
        joined = join_image(x, cond, self.conditions).astype(dtype)
        return Conditioned(
            joined, self._embed(cond, x.shape[0]).astype(dtype), *self._tokens(cond, x.shape[0])
        )

    def _embed(self, cond, batch):
        embedding = jnp.zeros((batch, self.features), self.precision.param)
        if self.conditions.classes:
            null = jnp.full(batch, self.conditions.classes)
            # An index beyond the table gives NaN, not the last row.
            embedding += jnp.take(self.table.get_value(), cond.get("class", null), axis=0, mode="fill")
        if "vector" in cond:
            embedding += self.vector(cond["vector"]).astype(embedding.dtype)
        return embedding

    def _tokens(self, cond, batch):
        if not self.conditions.tokens:
            return None, None
        tokens = jnp.broadcast_to(self.token.get_value(), (batch, 1, self.conditions.tokens))
        mask = jnp.ones((batch, 1), bool)
        if "tokens" in cond:
            given = cond["tokens"]
            given_mask = jnp.asarray(cond.get("token_mask", jnp.ones(given.shape[:2])), bool)
            tokens = jnp.concatenate([tokens, given.astype(tokens.dtype)], axis=1)
            mask = jnp.concatenate([mask, given_mask], axis=1)
        return tokens.astype(self.precision.compute), mask


def join_image(x, cond, conditions):
    """Joins the conditioning image and its presence channel to x; x itself for a network without one.

    Args:
        x: (b, *spatial, c).
        cond: dict that may hold "image" (b, *spatial, k) and "present" (b,).
        conditions: `Conditions`.

    Returns:
        (b, *spatial, c + k + 1): x, `present image`, `present`.
    """
    if not conditions.image:
        return x
    image = cond.get("image", jnp.zeros((*x.shape[:-1], conditions.image), x.dtype)).astype(x.dtype)
    here = cond.get("present", jnp.full(x.shape[0], "image" in cond)).astype(x.dtype)
    here = jnp.broadcast_to(here.reshape(-1, *[1] * (x.ndim - 1)), (*x.shape[:-1], 1))
    # `where`, because an absent image may hold NaN.
    return jnp.concatenate([x, jnp.where(here == 0, 0, here * image), here], axis=-1)


def check(conditions, cond, x):
    """Raises where cond does not fit the network or the input.

    Args:
        conditions: `Conditions` that the network was built for.
        cond: dict of arrays.
        x: (b, *spatial, c), the network's input.

    Returns:
        None.

    Raises:
        ValueError: for a key that the network was not built for, "present" without "image", "token_mask"
            without "tokens", a complex array, a class that is no integer, or a wrong shape.
    """
    known = conditions.keys()
    for key in cond:
        if key not in known:
            raise ValueError(
                f"the network takes no condition {key!r}: it was built for {list(known)}; "
                "drop the key or build it with Conditions(...) that has it"
            )
    for key, needed in (("present", "image"), ("token_mask", "tokens")):
        if key in cond and needed not in cond:
            raise ValueError(f"cond has {key!r} without {needed!r}: give both or neither")
    batch, spatial = x.shape[0], x.shape[1:-1]
    tokens = cond["tokens"].shape[1:2] if "tokens" in cond else ()
    shapes = {
        "image": (batch, *spatial, conditions.image),
        "present": (batch,),
        "class": (batch,),
        "vector": (batch, conditions.vector),
        "tokens": (batch, *(tokens or (1,)), conditions.tokens),
        "token_mask": (batch, *tokens),
    }
    for key, value in cond.items():
        if value.shape != shapes[key]:
            raise ValueError(f"cond[{key!r}] has shape {value.shape}; the network and x need {shapes[key]}")
        if jnp.iscomplexobj(value):
            raise ValueError(f"cond[{key!r}] is complex: give real parts, then imaginary parts, as channels")
    if "class" in cond and not jnp.issubdtype(cond["class"].dtype, jnp.integer):
        raise ValueError(f"cond['class'] has dtype {cond['class'].dtype}; it must be integers")
