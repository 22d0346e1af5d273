"""Pseudoinverse guidance: the likelihood of the noisy state under a round covariance of the clean image."""

from pgm_jax.guidance.likelihoods import clean_variance, residual_adjoint
from pgm_jax.guidance.makers import likelihood_gradient


def pigdm(likelihood, variance=None, *, rtol=1e-5, max_steps=100):
    """Makes pseudoinverse guidance, PiGDM (Song, Vahdat, Mardani and Kautz 2023, Eq. 7).

    With `p(x0 | x_t) ~ N(x0, r^2)` the likelihood of the state is Gaussian, and

        grad ln p(y | x_t) = J^H A^H (r^2 A A^H + noise)^-1 (y - A x0),    J = dx0 / dx_t,

    solved in data space by conjugate gradients, with one pullback of the network. The clean image moves by
    `sigma^2 grad / alpha` and the state stays. Any noise law; at finite D the nominal level stands for that of
    the state, a heuristic. A noise_std of 0 is allowed if A has full row rank or zero rows only.

    Biased: the true covariance of x0 given x_t is not round, so the data are trusted too much along narrow
    directions of the prior and too little along wide ones; more steps do not cure it. Exact for a prior
    `N(mean, I)`. On the Gaussian case of the tests (8 numbers, 4 data, EDM, 500 ancestral steps, exact denoiser)
    the mean is .10 posterior standard deviations off and the covariance 5 % (exact guidance: .00, 2 %).

    Args:
        likelihood: linear Gaussian likelihood, or a sum of them.
        variance: r^2, per real component, a number or a function `(process, t) -> variance`;
            `sigma^2 / (sigma^2 + alpha^2)` by default, the posterior variance of unit-variance data.
        rtol: relative tolerance of conjugate gradients.
        max_steps: largest number of their steps.

    Returns:
        A guidance.
    """

    def gradient(key, process, evaluation, t, state, pullback, covariance):
        x0 = evaluation.estimate.x0
        spread = clean_variance(variance, process, t)
        residual = likelihood.residual(x0)
        weights = likelihood.solve(residual, lambda v: spread * v, rtol=rtol, max_steps=max_steps)
        return (pullback(residual_adjoint(likelihood, x0, weights)), 0.0, process.sigma(t) ** 2), state

    return likelihood_gradient(gradient)
