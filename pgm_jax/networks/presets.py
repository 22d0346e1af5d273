"""Three published U-Nets as rows of options: DDPM++, NCSN++ and ADM.

Widths and depths are those that Karras et al. 2022 (Table 7) train; give smaller ones for smaller data.
Departures from the references: attention follows every block of its levels in the decoder too (ADM's rule), class
and vector are added behind the two time layers (ADM's rule), a resampling block has a convolution on its shortcut
only where channels differ (ADM's rule), and the input pyramid is halved before its convolution, which costs a
quarter.
"""

from pgm_jax.core import Network
from pgm_jax.networks.unet import unet

DDPMPP = {"width": 128, "multipliers": (2, 2, 2), "blocks": 4, "attention": (1,), "dropout": 0.1}
NCSNPP = DDPMPP | {"embedding": "fourier", "resample": "fir", "residual_input": True}
ADM = {
    "width": 192,
    "multipliers": (1, 2, 3, 4),
    "blocks": 3,
    "attention": (1, 2, 3),
    "head_channels": 64,
    "adaptive": True,
    "rescale": False,
    "dropout": 0.1,
}


def ddpmpp(channels: int, **options) -> Network:
    """Builds DDPM++ (Song et al. 2021, appendix H): sinusoidal embedding, mean resampling, rescaled sums.

    Args:
        channels: channels of the input x.
        **options: fields of `UNetOptions` to change.

    Returns:
        `Network(init, apply)`, see `unet`.
    """
    return unet(channels, **(DDPMPP | options))


def ncsnpp(channels: int, **options) -> Network:
    """Builds NCSN++ (Song et al. 2021, section 4.1): Fourier embedding, FIR resampling, residual input pyramid.

    Args:
        channels: channels of the input x.
        **options: fields of `UNetOptions` to change.

    Returns:
        `Network(init, apply)`, see `unet`.
    """
    return unet(channels, **(NCSNPP | options))


def adm(channels: int, **options) -> Network:
    """Builds ADM (Dhariwal and Nichol 2021, Table 4): adaptive group norm, heads of 64 channels on three levels.

    Args:
        channels: channels of the input x.
        **options: fields of `UNetOptions` to change.

    Returns:
        `Network(init, apply)`, see `unet`.
    """
    return unet(channels, **(ADM | options))
