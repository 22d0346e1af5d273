"""Small priors with arbitrary weights, written and loaded as trained ones are."""

import jax

from pgm_jax import networks, priors

WIDTHS = {"widths": [8, 8], "encoder": [1, 1], "decoder": [1], "embedding": 8}


def untrained_prior(folder, objective="denoising", D=64, reads=False, channels=1):
    """A `LearnedPrior` of an objective and D that reads an image of as many channels, or none."""
    options = WIDTHS | {"channels": channels} | ({"conditions": {"image": channels}} if reads else {})
    told = {"conditions": networks.Conditions(image=channels)} if reads else {}
    network = networks.drunet(**(options | told))
    params = jax.tree.map(
        lambda leaf: 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
        jax.eval_shape(network.init, jax.random.key(0)),
    )
    card = {
        "network": ["drunet", options],
        "process": ["PFGMpp", {"D": str(D)}],
        "sigma_data": 0.5,
        "unit": "water",
        "multiple": 4,
    } | ({} if objective == "denoising" else {"objective": objective})
    priors.save_prior(folder / "one.npz", params, card)
    return priors.load_prior(folder / "one.npz")
