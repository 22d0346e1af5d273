"""The verb `reconstruct` as tyro reads it. It imports no jax for `--help`."""

from pathlib import Path
from typing import Literal


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
    ) -> None:
        """Reconstruct raw data by a classical method: `pgm reconstruct scan.npy --geometry ct.json --method fbp`.

        Args:
            source: projections (NPY, NPZ, HDF5) with a geometry file, or k-space (fastMRI, ISMRMRD, NPY, NPZ).
            method: CT: fbp, fdk, art, sart, sirt, cgls, lsqr, tv, anisotropic_tv, tgv, fractional_tv, wavelet,
                mltr; PET, SPECT: mlem, osem, bsrem; MRI: cg_sense, zero_filled, gridding, tv, wavelet and others.
            geometry: JSON or TOML file of the scan, lengths in mm; `pgm show data.read_geometry` says how.
            out: folder for the image, image.png and reconstruct.json.
            format: nifti, npy, or a derived DICOM series with new UIDs.
            steps: iterations; None is the method's usual number.
            weight: weight of the regulariser relative to the data.
            relax: relaxation of art, sart and sirt.
            subsets: ordered subsets of the views; None is the usual number.
            window: ram-lak, shepp-logan, cosine, hamming or hann, for fbp and fdk.
            footprint: joseph, or strip (exact areas) for 2-D projectors.
            positive: keep the image at or above 0.
            attenuation: volume of attenuation in 1/mm, for PET and SPECT.
            units: what an NPY file of projections holds.
            water: attenuation of water in 1/mm, about 0.02; the image is then in HU.
            rtol: stop when residual and objective change by less than this share; 0 takes all steps.
            overwrite: replace an image that exists.
        """
        from pgm_jax.cli.reconstruct import Request, run_reconstruct
        from pgm_jax.reconstruction.methods import Options

        options = Options(weight, relax, window, positive)
        how = (steps, subsets, footprint, attenuation, units, water, rtol, overwrite)
        run_reconstruct(Request(source, method, geometry, out, format, *how, options))

    return {"reconstruct": reconstruct}
