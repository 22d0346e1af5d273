"""A run of `generation.train` in a folder, as `pgm train` leaves it."""

import json

from pgm_jax.recipes import generation, prior_config


def run(config, folder):
    """Trains or goes on, writes config.json, and returns the state."""
    folder.mkdir(exist_ok=True)
    state = generation.train(config, folder, save_every=2)
    config = generation.started(config, generation.start_config(config))
    (folder / "config.json").write_text(json.dumps(prior_config.to_json(config)))
    return state
