"""Estimators: a denoiser with carried state, and the composition of their transforms."""

from pgm_jax.core.contracts import Estimator


def lift(process, denoise, x1=None):
    """Makes an estimator of a raw denoiser; the only caller of one.

    Args:
        process: the process whose states it reads.
        denoise: `(x_t, t, cond) -> x0_hat` for one image; a jump denoiser also takes the target s.
        x1: given end point of a bridge, or None.

    Returns:
        `Estimator` with empty state, whose estimates satisfy `mix(estimate, t) == x_t`.
    """

    def init(x_t):
        return ()

    def apply(key, x_t, t, state, *, cond=None, s=None):
        x0 = denoise(x_t, t, cond) if s is None else denoise(x_t, t, cond, s)
        if x0.shape != x_t.shape:
            raise ValueError(
                f"The denoiser returned shape {x0.shape} for an image of shape {x_t.shape}: it must map one "
                "image to its clean estimate, without a batch axis."
            )
        return process.estimate(x_t, t, x0.astype(x_t.dtype), x1), state

    return Estimator(process, init, apply)


def chain(*guidances):
    """Composes guidance transforms; the first is nearest to the network.

    `chain(cfg(3.), dds(likelihood))` corrects the classifier-free guided estimate.

    Args:
        *guidances: transforms of estimators.

    Returns:
        A guidance.
    """

    def guidance(inner):
        for transform in guidances:
            inner = transform(inner)
        return inner

    return guidance
