"""`pgm bench fewstep`: few-step priors beside their teachers, rows and one figure. `--help` imports no jax."""

import dataclasses
from pathlib import Path

from pgm_jax.cli.files import writable


@dataclasses.dataclass(frozen=True)
class Fewstep:
    """Measure few-step priors beside their teachers: denoising PSNR and KID against evaluations and seconds.

    Attributes:
        json: file for the rows.
        figure: PNG file for the figure.
        teachers: shipped priors or .npz files, trained for denoising.
        students: shipped few-step priors or .npz files, of the same images.
        samplers: ddim, dpmpp_2m and heun for teachers, consistency and ctm for students.
        teacher_nfe: evaluations of the network for one image; Heun takes the largest odd number within each.
        student_nfe: evaluations for one image.
        gamma: noise of CTM's sampler; above 0 only for Normal noise.
        sigmas: noise levels of the denoising, the first for the figure.
        samples: images that are generated for the KID.
        references: real patches that they are compared with.
        denoised: real patches that are denoised.
        batch: images that are generated at a time.
        images: file of your own images, in the priors' unit, to cut the real patches from: NPY
            (slices, height, width, channel), NIfTI, NRRD; by default people that no shipped prior was trained on.
    """

    json: Path | None = None
    figure: Path | None = None
    teachers: tuple[str, ...] = ("chest-ct-edm", "chest-ct-pfgmpp")
    students: tuple[str, ...] = ()
    samplers: tuple[str, ...] = ("ddim", "dpmpp_2m", "heun", "consistency", "ctm")
    teacher_nfe: tuple[int, ...] = (1, 2, 4, 8, 16, 35)
    student_nfe: tuple[int, ...] = (1, 2, 4, 8)
    gamma: float = 0.0
    sigmas: tuple[float, ...] = (0.3,)
    samples: int = 64
    references: int = 256
    denoised: int = 32
    batch: int = 16
    images: Path | None = None

    def check(self) -> None:
        """Makes sure, before a long run, that the figure can be drawn.

        Raises:
            ValueError: for another kind of file, or one that cannot be written.
            MissingExtra: without the `viz` extra.
        """
        if self.figure is None:
            return
        if self.figure.suffix.lower() != ".png":
            raise ValueError(f"figure is {self.figure}: give the name of a .png file")
        from pgm_jax.core import require

        require("matplotlib", "viz")
        writable(self.figure)

    def rows(self):
        """Yields the rows, one a prior, sampler and number of evaluations."""
        from pgm_jax import bench

        given = {name: getattr(self, name) for name in bench.FewStepCase._fields}
        yield from bench.few_step_rows(bench.FewStepCase(**given))

    def draw(self, rows) -> None:
        """Draws the figure of finished rows.

        Args:
            rows: `bench.Row`s.
        """
        from pgm_jax.data import whole_file
        from pgm_jax.report import few_step_figure

        with whole_file(self.figure, overwrite=True) as picture:
            few_step_figure([row.case for row in rows], picture)
