"""One-step sampling beside Heun: rows of several device counts, and a sharded program without communication."""

import json

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from pgm_jax.bench import Case, methods
from pgm_jax.bench.model import build, mesh_of, noise
from pgm_jax.bench.sampling import program
from pgm_jax.cli import main as cli
from pgm_jax.parallel import batch_sharding, shard_batch, shard_samples

NETWORK = {"widths": (4,), "encoder": (1,), "decoder": (), "embedding": 8}
WORDS = (
    "--network drunet --options widths=4, encoder=1, decoder=[] embedding=8 --sizes 4 --batch 8 --no-torch"
)
COLLECTIVES = (
    "all-reduce( all-gather( collective-permute( all-to-all( reduce-scatter( -start( callback".split()
)


def test_one_step_and_heun_on_one_and_eight_devices(tmp_path):
    path = tmp_path / "rows.json"
    given = ["--samplers", "heun", "one_step", "--steps", "18", "--devices", "1", "8", "--repeats", "1"]
    assert cli.main(["bench", "sampling", *WORDS.split(), *given, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    cases = [row["case"] for row in rows]
    found = [(c["sampler"], c["devices"], c["steps"], c["evaluations"]) for c in cases]
    assert found == [("heun", 1, 18, 35), ("one_step", 1, 1, 1), ("heun", 8, 18, 35), ("one_step", 8, 1, 1)]
    assert rows[0]["flops"] == 35 * rows[1]["flops"]


def test_one_step_is_the_denoised_start_on_any_number_of_devices_without_communication():
    case = Case("drunet", 8, 16, devices=8, options=NETWORK)
    method, model = methods()["one_step"], build(case)
    start, grid = noise(case, 80.0), method.grid(18)
    images = {}
    for devices in (1, 8):
        mesh = mesh_of(case._replace(devices=devices))
        params = jax.device_put(model.params, NamedSharding(mesh, PartitionSpec()))
        arguments = params, shard_batch(mesh, start)
        lowered = shard_samples(program(method, model, grid), mesh).lower(*arguments)
        assert "callback" not in lowered.as_text()
        compiled = lowered.compile()
        assert not [word for word in COLLECTIVES if word in compiled.as_text()]
        images[devices] = compiled(*arguments)
        assert images[devices].sharding.is_equivalent_to(batch_sharding(mesh), 4)
    np.testing.assert_allclose(images[8], images[1], rtol=1e-5, atol=1e-5)
    c = method.parameterisation(method.process, jax.numpy.full((16, 1, 1, 1), 80.0))
    output = model.network.apply(model.params, c.c_in * start, c.c_noise.reshape(16))
    np.testing.assert_allclose(images[1], c.c_skip * start + c.c_out * output, rtol=1e-4, atol=1e-4)
