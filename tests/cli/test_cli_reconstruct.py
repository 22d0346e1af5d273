"""`pgm reconstruct` end to end on tiny scans: every method, every kind of data, and one line for each mistake."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import data
from pgm_jax.cli import main as cli
from pgm_jax.operators import (
    Cone,
    ConeBeam,
    ImageGrid,
    Parallel,
    ParallelBeam,
    Sense,
    VolumeGrid,
    birdcage_maps,
    equispaced_mask,
    radial,
)

SIZE, VIEWS, BINS = 24, 36, 35
ANGLES = {"unit": "degrees", "start": 0, "stop": 180, "count": VIEWS}
IMAGE = {"shape": [SIZE, SIZE], "spacing": [2.0, 2.0]}


def disc(slices=2):
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    one = 0.02 * ((x + 2) ** 2 + (y - 3) ** 2 < 49) + 0.01 * (x**2 + y**2 < 100)
    return np.stack([one * (1 - 0.3 * k) for k in range(slices)], axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def planar(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct")
    geometry = Parallel(np.arange(VIEWS) * np.pi / VIEWS, BINS, 2.0)
    operator = ParallelBeam(ImageGrid((SIZE, SIZE), 2.0), geometry, channels=2)
    sinogram = np.moveaxis(np.asarray(operator(disc())), -1, 1)
    np.save(folder / "scan.npy", sinogram)
    counts = 1e5 * np.exp(-sinogram)
    np.savez(
        folder / "counts.npz", counts=counts.astype(np.float32), blank=np.full((2, BINS), 1e5, np.float32)
    )
    np.savez(folder / "pet.npz", counts=np.random.default_rng(0).poisson(200 * sinogram).astype(np.float32))
    common = {"angles": ANGLES, "bins": BINS, "spacing": 2.0, "image": IMAGE}
    (folder / "ct.json").write_text(json.dumps({"geometry": "parallel", **common}))
    (folder / "pet.json").write_text(json.dumps({"geometry": "pet", **common}))
    return folder


def run(out, *words):
    assert cli.main(["reconstruct", *map(str, words), "--out", str(out), "--format", "npy"]) == 0
    record = json.loads((out / "reconstruct.json").read_text())
    assert (out / "image.png").stat().st_size > 100
    return np.load(out / "image.npy"), record


def psnr(image, truth):
    return 10 * np.log10(np.max(truth) ** 2 / np.mean((image - truth) ** 2))


def refused(capsys, words, *argv):
    assert cli.main(["reconstruct", *map(str, argv)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("pgm: ") and err.count("\n") == 1 and words in err, err


CASES = {
    "fbp": (22, ()),
    "sart": (25, ("--steps", 6)),
    "sirt": (22, ("--steps", 60, "--relax", 1.0)),
    "art": (25, ("--steps", 3, "--relax", 0.3)),
    "cgls": (26, ("--steps", 12)),
    "lsqr": (26, ("--steps", 12)),
    "tv": (28, ("--steps", 150, "--weight", 3e-5)),
    "anisotropic_tv": (28, ("--steps", 150, "--weight", 3e-5)),
    "tgv": (25, ("--steps", 150, "--weight", 3e-5)),
    "fractional_tv": (23, ("--steps", 150, "--weight", 3e-5)),
    "wavelet": (22, ("--steps", 60, "--weight", 3e-5)),
}


@pytest.mark.parametrize("method", CASES)
def test_slices_from_line_integrals(planar, tmp_path, method):
    floor, words = CASES[method]
    image, record = run(
        tmp_path, planar / "scan.npy", "--geometry", planar / "ct.json", "--method", method, *words
    )
    truth = np.moveaxis(disc(), -1, 0)
    assert psnr(image.reshape(truth.shape), truth) > floor
    assert record["method"] == method and record["problems"] == 1
    if record["steps"]:
        (trace,) = record["traces"]
        assert trace["steps"] == record["steps"] == len(trace["residual"])
        assert trace["residual"][-1] < trace["residual"][0]


def test_counts_take_their_likelihood_and_become_hounsfield_units(planar, tmp_path):
    words = ("--geometry", planar / "ct.json", "--method", "mltr", "--steps", 60, "--water", 0.02)
    image, record = run(tmp_path, planar / "counts.npz", *words)
    truth = 1000 * (np.moveaxis(disc(), -1, 0) / 0.02 - 1)
    assert record["image_units"] == "HU" and np.abs(image.reshape(truth.shape) - truth).mean() < 150


@pytest.mark.parametrize(("method", "steps"), [("mlem", 30), ("osem", 4), ("bsrem", 15)])
def test_pet(planar, tmp_path, method, steps):
    words = ("--geometry", planar / "pet.json", "--method", method, "--steps", steps, "--subsets", 6)
    image, record = run(tmp_path, planar / "pet.npz", *words)
    truth = 200 * np.moveaxis(disc(), -1, 0)
    assert psnr(image.reshape(truth.shape), truth) > 17 and image.min() >= 0
    objective = record["traces"][0]["objective"]
    assert objective[-1] > objective[0]


def test_a_cone_beam_volume(tmp_path):
    volume = np.zeros((6, 10, 10, 1), np.float32)
    volume[1:5, 3:7, 2:8] = 0.02
    operator = ConeBeam(
        VolumeGrid(volume.shape[:3], 2.0), Cone(np.arange(24) * np.pi / 12, 60.0, 90.0, 12, 18, (3.0, 3.0))
    )
    np.save(tmp_path / "scan.npy", np.asarray(operator(volume))[..., 0])
    geometry = {
        "geometry": "cone",
        "angles": {"unit": "degrees", "start": 0, "stop": 360, "count": 24},
        "source_to_axis": 60.0,
        "source_to_detector": 90.0,
        "rows": 12,
        "columns": 18,
        "spacing": [3.0, 3.0],
        "image": {"shape": [6, 10, 10], "spacing": [2.0, 2.0, 2.0]},
    }
    (tmp_path / "cone.json").write_text(json.dumps(geometry))
    strip = ("--footprint", "strip")
    for method, floor, footprint in (("fdk", 13, ()), ("sirt", 18, ()), ("sirt", 18, strip)):
        words = ("--geometry", tmp_path / "cone.json", "--method", method, *footprint)
        image, _ = run(tmp_path / "".join((method, *footprint)), tmp_path / "scan.npy", *words)
        assert psnr(image.reshape(volume.shape), volume) > floor


@pytest.fixture(scope="module")
def kspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mri")
    truth = 50 * disc(1).repeat(2, axis=0).repeat(2, axis=1).astype(np.complex64)
    side = 2 * SIZE
    maps = birdcage_maps(4, side, side)
    mask = np.asarray(equispaced_mask(0, side, 2, 0.3))
    y = np.asarray(Sense(maps, mask)(jnp.asarray(truth)))
    np.savez(folder / "cartesian.npz", kspace=y[None], mask=mask)
    return folder, np.abs(truth[..., 0]), maps


@pytest.mark.parametrize("method", ["cg_sense", "tv", "wavelet", "zero_filled"])
def test_mri_slices(kspace, tmp_path, method):
    folder, truth, _ = kspace
    image, _ = run(tmp_path, folder / "cartesian.npz", "--method", method, "--weight", 1e-3)
    assert np.iscomplexobj(image)
    assert psnr(np.abs(image).reshape(truth.shape), truth) > (15 if method == "zero_filled" else 22)


def test_mri_along_spokes(kspace, tmp_path):
    from pgm_jax.operators import NonCartesian

    folder, truth, maps = kspace
    side = 2 * SIZE
    points = radial(60, 2 * side, (side, side)).points
    y = np.asarray(NonCartesian.create(maps, points)(jnp.asarray(truth[..., None], jnp.complex64)))
    np.savez(tmp_path / "radial.npz", kspace=y[None], trajectory=points, matrix=np.array([1, side, side]))
    for method in ("gridding", "cg_sense"):
        image, _ = run(tmp_path / method, tmp_path / "radial.npz", "--method", method)
        assert psnr(np.abs(image).reshape(truth.shape), truth) > 20


def test_the_formats_and_what_exists(planar, tmp_path, capsys):
    words = [planar / "scan.npy", "--geometry", planar / "ct.json", "--method", "fbp", "--out", tmp_path]
    assert cli.main(["reconstruct", *map(str, words)]) == 0
    volume = data.read(tmp_path / "image.nii.gz")
    assert volume.array.shape == (2, SIZE, SIZE, 1)
    refused(capsys, "exists: choose another --out, or add --overwrite", *words)
    assert cli.main(["reconstruct", *map(str, words), "--overwrite"]) == 0


MISTAKES = [
    (("scan.npy", "ct.json", "fpb"), "did you mean fbp?"),
    (("scan.npy", "ct.json", "osem"), "osem is for emission problems and does not fit this scan: use one of"),
    (("scan.npy", "ct.json", "mltr"), "mltr needs counts and does not fit"),
    (("scan.npy", "pet.json", "osem"), "an emission scan needs counts"),
    (("none.npy", "ct.json", "fbp"), "none.npy"),
    (("scan.npy", "none.json", "fbp"), "none.json"),
    (("scan.npy", "ct.json", "sart", "--steps", "0"), "--steps 0: give at least 1"),
    (("scan.npy", "ct.json", "sart", "--subsets", "99"), "99"),
    (("scan.npy", "ct.json", "tv", "--weight", "0"), "--weight 0: give a positive number"),
    (("scan.npy", "ct.json", "wavelet", "--positive"), "wavelet has no positive images"),
    (("scan.npy", "ct.json", "fbp", "--water", "-1"), "--water -1.0: give the attenuation of water"),
    (("scan.npy", "ct.json", "sirt", "--relax", "50", "--steps", "200"), "use a smaller relax"),
]


@pytest.mark.parametrize(("argv", "words"), MISTAKES)
def test_a_mistake_is_one_line(planar, tmp_path, capsys, argv, words):
    source, geometry, method, *others = argv
    refused(
        capsys,
        words,
        planar / source,
        *("--geometry", planar / geometry, "--method", method, "--out", tmp_path / "out", *others),
    )
    assert not list(tmp_path.glob("out/image*"))
