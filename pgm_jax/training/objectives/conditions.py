"""Condition dropout: with some probability a sample is shown no condition, which classifier-free guidance needs."""

import jax
import jax.numpy as jnp


def drop_conditions(cond, dropped, null=None):
    """Takes the conditions from the samples that are marked.

    An image goes by its "present" flag and tokens by their mask, because zeros are legal images. A class or a
    vector is replaced by the value in `null`.

    Args:
        cond: dict of conditions with a leading batch axis, or None.
        dropped: (b,) booleans.
        null: dict with the value that stands for none: `{"class": classes}` (the index of the learned null),
            `{"vector": ...}`.

    Returns:
        The dict, or None.

    Raises:
        ValueError: for a condition that has no null.
    """
    if cond is None:
        return None
    kept = jnp.logical_not(dropped).astype(jnp.result_type(float))
    result = dict(cond)
    for name in cond.keys() - {"image", "present", "tokens", "token_mask"}:
        if name not in (null or {}):
            raise ValueError(
                f"condition dropout does not know what stands for no {name!r}: give null={{{name!r}: ...}} "
                "(for a class the number of classes)."
            )
        value = jnp.asarray(null[name], cond[name].dtype)
        result[name] = jax.vmap(lambda gone, given, value=value: jnp.where(gone, value, given))(
            dropped, cond[name]
        )
    if "image" in cond:
        result["present"] = kept * cond.get("present", jnp.ones_like(kept))
    if "tokens" in cond:
        mask = cond.get("token_mask", jnp.ones(cond["tokens"].shape[:2], kept.dtype))
        result["token_mask"] = mask * kept[:, None].astype(mask.dtype)
    return result
