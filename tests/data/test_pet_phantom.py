"""The PET phantom on maps whose geometry is known, and on the real tissue maps."""

import jax
import numpy as np
import pytest

from pgm_jax.data import DataError, Volume, cached, load
from pgm_jax.data.pet_phantom import pet_phantom
from pgm_jax.operators.ct.geometry import ImageGrid, Parallel
from pgm_jax.operators.ct.parallel import ParallelBeam
from pgm_jax.operators.emission.pet import PET
from pgm_jax.operators.emission.psf import GaussianPSF
from pgm_jax.operators.emission.simulation import simulate_scan


def _maps(spacing=(3.0, 2.0, 2.0), shape=(31, 45, 45)):
    """A ball of white matter of 12 mm in a shell of grey matter of 20 mm, with a hollow of 3 mm."""
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, spacing, strict=True)]
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    white, grey = (radius < 12) & (radius > 3), (radius >= 12) & (radius < 20)
    make = lambda mask: Volume(255.0 * mask[..., None], spacing, np.eye(4), "probability x 255", "map")
    return make(grey), make(white), radius


def test_tissues_have_their_activity_and_the_head_its_layers():
    grey, white, radius = _maps()
    activity, attenuation = pet_phantom(grey, white, ratio=4.0)
    values, mu = activity.array[..., 0], attenuation.array[..., 0]
    assert activity.units == "relative to white matter" and attenuation.units == "1/mm"
    np.testing.assert_array_equal(values, 4 * (grey.array[..., 0] > 0) + 1.0 * (white.array[..., 0] > 0))
    # The hollow is filled, then 7 mm of bone and 5 mm of scalp, to the resolution of the voxels.
    assert np.all(mu[radius < 16] == np.float32(0.0096))
    assert np.all(mu[(radius > 23.5) & (radius < 24.5)] == np.float32(0.0151))
    assert np.all(mu[(radius > 28.5) & (radius < 30.5)] == np.float32(0.0096))
    assert np.all(mu[radius > 36] == 0) and values.min() == 0
    assert activity.spacing == (3.0, 2.0, 2.0) and activity.array.dtype == np.float32


def test_a_lesion_replaces_the_activity_of_its_sphere():
    grey, white, _ = _maps()
    plain = pet_phantom(grey, white).activity.array
    spots = pet_phantom(grey, white, lesions=[((6.0, -4.0, 8.0), 4.0, 9.0)]).activity.array
    changed = np.argwhere((plain != spots)[..., 0])
    centre = (np.array(plain.shape[:3]) - 1) / 2
    away = (changed - centre) * np.array([3.0, 2.0, 2.0]) - np.array([6.0, -4.0, 8.0])
    assert np.all(np.linalg.norm(away, axis=1) <= 4) and np.all(spots[tuple(changed.T)] == 9)
    np.testing.assert_allclose(len(changed) * 12.0, 4 / 3 * np.pi * 4**3, rtol=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v._replace(spacing=None), "give two maps on one grid"),
        (lambda v: v._replace(array=v.array[1:]), "give two maps on one grid"),
        (lambda v: v._replace(units="a.u."), "values from 0 to 255"),
        (lambda v: v._replace(array=v.array - 1), "values from -0.0039"),
    ],
)
def test_maps_that_do_not_fit_are_refused(change, message):
    grey, white, _ = _maps()
    with pytest.raises(DataError, match=message):
        pet_phantom(change(grey), white)


def test_a_simulated_scan_has_the_counts_that_were_asked_for(key):
    beam = ParallelBeam(ImageGrid((16, 16), 4.0), Parallel(np.arange(12) * np.pi / 12, 23, 4.0))
    image = np.zeros((16, 16, 1), np.float32)
    image[4:12, 5:11] = 2.0
    y, background, scale = simulate_scan(key, beam, image, 3e5, scatter=0.2, randoms=0.4)
    mean = beam(scale * image)
    np.testing.assert_allclose([mean.sum(), background.sum()], [3e5, 0.6 * 3e5], rtol=1e-5)
    assert abs(float(y.sum()) - 1.6 * 3e5) < 5 * np.sqrt(1.6 * 3e5)
    # Pearson's statistic of Poisson counts: its mean is the number of bins.
    pearson = float(np.sum((np.asarray(y) - (mean + background)) ** 2 / (mean + background)))
    assert abs(pearson - y.size) < 5 * np.sqrt(2 * y.size)
    # Randoms alone in the corners that see nothing, and a scatter that is smooth.
    assert (
        background.min() > 0.4 * 3e5 / y.size and np.abs(np.diff(background[0, :, 0])).max() < mean.max() / 20
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not (cached("mni152-gm") and cached("mni152-wm")), reason="the tissue maps are not cached"
)
def test_osem_recovers_the_phantom_of_the_real_tissue_maps(key):
    """A slice at 2 mm, 1e6 trues simulated at 1 mm with strips, reconstructed with Joseph's projector."""
    from pgm_jax.reconstruction.osem import osem

    phantom = pet_phantom(load("mni152-gm", fetch=False), load("mni152-wm", fetch=False))
    fine, mu = (np.pad(v.array[90], ((11, 12), (29, 30), (0, 0)))[:256, :256] for v in phantom)
    coarse = lambda image: image[:256, :256].reshape(128, 2, 128, 2, 1).mean((1, 3))
    geometry = Parallel(np.arange(168) * np.pi / 168, 128, 2.0)
    scanner = ParallelBeam(ImageGrid((256, 256), 1.0), geometry, "strip")
    truth = PET.create(scanner, attenuation=mu, psf=GaussianPSF.create((256, 256, 1), 4.5, 1.0))
    y, background, scale = jax.jit(lambda k, x: simulate_scan(k, truth, x, 1e6))(key, fine)
    model = ParallelBeam(ImageGrid((128, 128), 2.0), geometry, subsets=28)
    pet = PET.create(model, attenuation=coarse(mu), psf=GaussianPSF.create((128, 128, 1), 4.5, 2.0))
    image, trace = jax.jit(lambda y, b: osem(pet, y, 3, background=b))(y, background)
    image, target = np.asarray(image / scale), coarse(fine)
    assert np.all(np.diff(trace.objective) > 0)
    grey, white, outside = target > 3.6, (target > 0.95) & (target < 1.3), target == 0
    np.testing.assert_allclose(image.sum(), target.sum(), rtol=0.03)
    assert 3.0 < image[grey].mean() < 4.2 and 0.9 < image[white].mean() < 1.6
    assert image[outside].mean() < 0.1
    assert np.linalg.norm(image - target) < 0.35 * np.linalg.norm(target)
