"""The verb `reconstruct` as tyro reads it. It imports no jax for `--help`."""

from pathlib import Path
from typing import Literal, NamedTuple


class DrawOptions(NamedTuple):
    """Options of draws from a posterior, with --prior.

    Attributes:
        prior: shipped prior or .npz file; the image is then the mean of the draws, std.nii.gz their standard
            deviation, and report.html shows both.
        noise_std: noise of the data per real component, in their unit.
        draws: posterior draws of each slice.
        seed: seed of the draws.
        scale: value of the image that is 1 for the prior; None is --water for a prior of CT, else the 99.5th
            percentile of a first image.
    """

    prior: str | None = None
    noise_std: float | None = None
    draws: int = 8
    seed: int = 0
    scale: float | None = None


_NONE = DrawOptions()


def reconstruct_verb(tyro) -> dict:
    """Builds the verb.

    Args:
        tyro: the module.

    Returns:
        Dict from the verb's name to its function.
    """
    positional = tyro.conf.Positional

    def reconstruct(
        source: positional[Path],
        /,
        *,
        method: str,
        geometry: Path | None = None,
        out: Path = Path("pgm-reconstruct"),
        format: Literal["nifti", "npy", "dicom"] = "nifti",
        steps: int | None = None,
        weight: float = 0.01,
        relax: float = 0.5,
        subsets: int | None = None,
        window: str = "ram-lak",
        footprint: Literal["joseph", "strip"] = "joseph",
        positive: bool = False,
        attenuation: Path | None = None,
        units: Literal["line-integrals", "counts"] = "line-integrals",
        water: float | None = None,
        rtol: float = 0.0,
        overwrite: bool = False,
        posterior: tyro.conf.OmitArgPrefixes[DrawOptions] = _NONE,
    ) -> None:
        """Reconstruct raw data: `pgm reconstruct scan.npy --geometry ct.json --method fbp`.

        With a trained prior: `pgm reconstruct brain.h5 --method dds --prior brain-t1-pfgmpp --noise-std 0.01`.

        Args:
            source: projections (NPY, NPZ, HDF5) with a geometry file, or k-space (fastMRI, ISMRMRD, NPY, NPZ).
            method: CT: fbp, fdk, art, sart, sirt, cgls, lsqr, tv, anisotropic_tv, tgv, fractional_tv, wavelet,
                mltr; PET, SPECT: mlem, osem, bsrem; MRI: cg_sense, zero_filled, gridding, tv, wavelet and others;
                with --prior: dds, diffpir, moment_matching, pigdm, dps.
            geometry: JSON or TOML file of the scan, lengths in mm; `pgm show data.read_geometry` says how.
            out: folder for the image, image.png and reconstruct.json.
            format: nifti, npy, or a derived DICOM series with new UIDs.
            steps: iterations; None is the method's usual number. Of a draw: 50, or 2 with a prior that reads an
                image (brain-t1-posterior, chest-ct-posterior).
            weight: weight of the regulariser relative to the data.
            relax: relaxation of art, sart and sirt.
            subsets: ordered subsets of the views; None is the usual number.
            window: ram-lak, shepp-logan, cosine, hamming or hann, for fbp and fdk.
            footprint: joseph, or strip (exact areas; cones with upright detectors by separable footprints).
            positive: keep the image at or above 0.
            attenuation: volume of attenuation in 1/mm, for PET and SPECT.
            units: what an NPY file of projections holds.
            water: attenuation of water in 1/mm, about 0.02; the image is then in HU.
            rtol: stop when residual and objective change by less than this share; 0 takes all steps.
            overwrite: replace an image that exists.
        """
        from pgm_jax.cli.posterior import PriorRequest
        from pgm_jax.cli.reconstruct import Request, run_reconstruct
        from pgm_jax.reconstruction.methods import Options

        options = Options(weight, relax, window, positive)
        how = (steps, subsets, footprint, attenuation, units, water, rtol, overwrite)
        chosen = None if posterior.prior is None else PriorRequest(*posterior)
        run_reconstruct(Request(source, method, geometry, out, format, *how, options, chosen))

    return {"reconstruct": reconstruct}
