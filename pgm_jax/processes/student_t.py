"""The Student-t noise law: the perturbation kernel of PFGM++ (and of PFGM at D = 1).

With r = sigma sqrt(D) the PFGM++ kernel (Xu et al. 2023, Eq. 8; review Eq. 15)

    p_r(x | y) ~ (|x - y|^2 + r^2)^(-(N + D) / 2) = (1 + |x - y|^2 / (D sigma^2))^(-(N + D) / 2) r^-(N + D)

is a multivariate Student-t with D degrees of freedom and scale sigma: a Normal whose variance multiplier
v = D / chi2_D is shared by every component of the event.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgm_jax.core import real_size, safe_divide
from pgm_jax.processes.normal import Normal, unit_normal
from pgm_jax.processes.quadrature import log_average

# Marsaglia and Tsang accept a candidate with probability >= 0.95, so 16 rounds all fail once in 1e20 draws.
_ROUNDS = 16


def log_gamma_variate(key, a, shape=()):
    """Draws `ln G`, G ~ Gamma(a), with a fixed number of operations.

    Marsaglia and Tsang (2000) with all candidates drawn at once: no data-dependent loop, so a sharded
    batch of draws needs no communication. For a < 1, `G_a = G_(a+1) U^(1/a)` keeps small draws finite.

    Args:
        key: PRNG key.
        a: shape parameter, any positive real; may be traced.
        shape: shape of the draw.

    Returns:
        float32 (or default real dtype) array of log draws.
    """
    key_z, key_u, key_boost = jax.random.split(key, 3)
    dtype = jnp.result_type(float)
    a = jnp.asarray(a, dtype)
    d = jnp.where(a < 1, a + 1, a) - 1 / 3
    c = 1 / jnp.sqrt(9 * d)
    z = jax.random.normal(key_z, (_ROUNDS, *shape), dtype)
    log_u = jnp.log(jax.random.uniform(key_u, (_ROUNDS, *shape), dtype, jnp.finfo(dtype).tiny, 1.0))
    root = 1 + c * z
    log_v = 3 * jnp.log(jnp.where(root > 0, root, 1.0))
    accepted = (root > 0) & (log_u < 0.5 * z**2 + d * (1 - jnp.exp(log_v) + log_v))
    first = jnp.argmax(accepted, axis=0)
    log_draw = jnp.log(d) + jnp.take_along_axis(log_v, first[None], axis=0)[0]
    boost = jnp.log(jax.random.uniform(key_boost, shape, dtype, jnp.finfo(dtype).tiny, 1.0)) / a
    return jnp.where(a < 1, log_draw + boost, log_draw)


class StudentT(struct.PyTreeNode):
    """Unit multivariate Student-t noise with `df` degrees of freedom (the D of PFGM++).

    `StudentT(math.inf)` is `Normal()`: infinity is decided on a Python number. Any other `df > 0` may be
    traced, so that a new D does not recompile.

    Attributes:
        df: degrees of freedom D > 0.
        event_axes: axes that share one radius; None means all (one radius per sample). A volume whose model
            is two-dimensional sets the axes of a slice, so that every slice draws its own.
    """

    df: Any
    event_axes: Any = struct.field(pytree_node=False, default=None)

    def __new__(cls, df, event_axes=None):
        if isinstance(df, (int, float)):
            if not df > 0:
                raise ValueError(f"StudentT needs df > 0 degrees of freedom, got {df}; D = inf is Normal().")
            if math.isinf(df):
                return Normal()
        return super().__new__(cls)

    def energy(self, noise):
        """Returns `(|noise|^2, size)` per event; the reduced axes are kept as ones."""
        axes = self.event_axes if self.event_axes is not None else tuple(range(noise.ndim))
        total = jnp.sum(jnp.abs(noise) ** 2, axis=axes, keepdims=True)
        components = 2 if jnp.iscomplexobj(noise) else 1
        return total, components * math.prod(noise.shape[a] for a in axes)

    def sample(self, key, shape, dtype=jnp.float32):
        """Draws `z sqrt(D / chi2_D)`, z standard normal: one chi2 draw per event.

        Args:
            key: PRNG key.
            shape: shape of the image.
            dtype: real or complex dtype.

        Returns:
            Array of the given shape; finite in float32 for any D and size.
        """
        key_z, key_c = jax.random.split(key)
        axes = self.event_axes if self.event_axes is not None else tuple(range(len(shape)))
        events = tuple(1 if a in {i % len(shape) for i in axes} else n for a, n in enumerate(shape))
        log_chi2_half = log_gamma_variate(key_c, jnp.asarray(self.df) / 2, events)
        log_scale = 0.5 * (jnp.log(jnp.asarray(self.df) / 2) - log_chi2_half)
        scale = jnp.exp(jnp.clip(log_scale, -40.0, 40.0))
        return (scale * unit_normal(key_z, shape, dtype)).astype(dtype)

    def log_prob(self, noise):
        """Returns the log density of one unit draw, summed over events, a real scalar.

        `ln G((N + D) / 2) - ln G(D / 2) - (N / 2) ln(pi D) - (N + D) / 2 log1p(|n|^2 / D)`.
        """
        df = jnp.asarray(self.df, jnp.result_type(float))
        energy, size = self.energy(noise)
        log_norm = (
            jax.lax.lgamma((size + df) / 2) - jax.lax.lgamma(df / 2) - 0.5 * size * jnp.log(jnp.pi * df)
        )
        return jnp.sum(log_norm - 0.5 * (size + df) * jnp.log1p(energy / df))

    def refresh(self, noise, fresh, r):
        """Keeps the noise (r = 0) or replaces it (r = 1); no other mixture of Student-t draws is Student-t.

        Raises:
            ValueError: for any `r` other than the Python numbers 0 and 1.
        """
        if isinstance(r, (int, float)) and r in (0, 1):
            return fresh if r else noise
        raise ValueError(
            "Student-t noise (finite D) cannot be refreshed in part: a sum of Student-t draws, or one with "
            "fresh values in a region only, is not Student-t. Use a deterministic sampler (ddim(), heun()), "
            'reverse(of="marginal") with eta 0 or 1, or D = inf.'
        )

    def widen(self, key, shape, dtype, small, large):
        """Draws the noise that turns scale `small` into scale `large`; exists in closed form for D = 1 only.

        At D = 1 (PFGM) the kernels form the Poisson semigroup: add Cauchy noise of scale `large - small`.

        Raises:
            ValueError: for any other D.
        """
        if isinstance(self.df, (int, float)) and self.df == 1:
            return (large - small) * self.sample(key, shape, dtype)
        raise ValueError(
            "Student-t noise has a closed-form forward move between levels only at D = 1 (the Python number) "
            f"and D = inf, not at D = {self.df}: use a grid that only descends, or restart from perturb()."
        )

    def score(self, noise, sigma):
        """Refuses: Langevin steps need the score of a Normal kernel, `-noise / sigma`.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "The score of a PFGM++ marginal is not -noise / sigma at finite D, so Langevin, SDE and "
            "predictor-corrector steps are not valid: use ddim(), heun() or dpmpp_2m(), or D = inf."
        )

    def gain(self, sigma, residual_sq, size):
        """Returns `(D sigma^2 + |x - x0|^2) / (N + D - 2)`: the posterior mean of the noise variance.

        Args:
            sigma: noise level.
            residual_sq: `|x_t - alpha x0 - beta x1|^2`, or its posterior mean where that is known.
            size: number N of real components that share the radius.

        Raises:
            ValueError: where N + D <= 2, so that the mean does not exist; a traced D is not seen.
        """
        known = not isinstance(self.df, jax.core.Tracer) and not isinstance(size, jax.core.Tracer)
        if known and not size + float(self.df) > 2:
            raise ValueError(
                f"Student-t noise of D = {float(self.df):g} on {size} real components has no mean variance: "
                "size + D must exceed 2; use a larger D or image."
            )
        return (self.df * sigma**2 + residual_sq) / (size + self.df - 2)

    def tilt(self, noise, sigma, grad, dsigma, gain):
        """Returns the noise of the posterior given `grad = grad_x ln p(y | x_t)`.

        `(noise - gain grad / sigma) / (1 - gain dsigma / (D sigma))`, exact for the true gain and
        `dsigma = d ln p(y | x_t, sigma) / d sigma` (the field of a product density; for D -> inf this is
        `noise - sigma grad`).
        """
        push = safe_divide(gain, sigma)
        return (noise - push * grad) / (1 - push * dsigma / self.df)

    def covariance(self, sigma, residual, tangents, key=None):
        """Returns `v -> Cov[x0 | x_t] v` from a denoiser's derivatives, in the frame where alpha is 1.

        At finite D the state also tells the noise level, so that v J is the covariance plus a rank-one term.
        With d = x - x0, J = dx0/dx, b = (dx0/dsigma) / (D sigma):

            q = (d.Jd - (b.d) |d|^2) / (1 - b.d),  g = d - Jd + b (|d|^2 - q),
            G = J - b g^T,  v = (D sigma^2 + |d|^2) / (N + D - tr G),  Cov = v (G + G^T) / 2.

        Args:
            sigma: noise level sigma / alpha.
            residual: d.
            tangents: the derivatives of the denoiser; see `guidance.makers.Tangents`.
            key: PRNG key of the probe that estimates the trace of J.

        Returns:
            A function of an image.
        """
        if self.event_axes is not None:
            raise ValueError("Moment matching at finite D needs one radius per sample: event_axes=None.")
        from_dot = lambda a, c: jnp.sum(jnp.real(jnp.conj(a) * c))
        size = real_size(residual)
        d_sq = from_dot(residual, residual)
        j_d = tangents.pushforward(residual)
        b = safe_divide(tangents.dsigma(), self.df * sigma)
        b_d = from_dot(b, residual)
        q = (from_dot(residual, j_d) - b_d * d_sq) / (1 - b_d)
        g = residual - j_d + b * (d_sq - q)
        trace = tangents.trace(key) - from_dot(g, b)
        v = (self.df * sigma**2 + d_sq) / (size + self.df - trace)

        def apply(u):
            transposed = tangents.pullback(u) - g * from_dot(b, u)
            plain = tangents.pushforward(u) - b * from_dot(g, u)
            return 0.5 * v * (plain + transposed)

        return apply

    def marginalise(self, conditional, power=0.0, size=None):
        """Averages a conditional over the variance multiplier v = D / chi2_D, given the state.

        `p(x) = int p(v) p(x | v) dv`, and the average of a value under `p(v | x)`; by quadrature in ln v.

        Args:
            conditional: `v -> (log p(x | v), values)`, values a pytree.
            power: weight `v^power` on the integrand; 1 gives the potential, whose exponent is N + D - 2.
            size: number of real components N, static; large N needs fewer nodes.

        Returns:
            `(log p(x), averaged values)`; with a power, the log of the weighted integral.
        """
        if self.event_axes is not None:
            raise ValueError(
                "Exact priors know one radius per sample only: use StudentT(df) without event_axes."
            )
        half = jnp.asarray(self.df, jnp.result_type(float)) / 2

        def log_mixing(u):
            return half * jnp.log(half) - jax.lax.lgamma(half) - half * (u + jnp.exp(-u)) + power * u

        return log_average(conditional, log_mixing, nodes=33 if (size or 0) >= 4096 else 257)
