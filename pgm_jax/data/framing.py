"""Any image size to any matrix size, and back."""

from collections.abc import Sequence

from pgm_jax.core import namespace


def pad_or_crop(image, shape: Sequence[int], fill: float = 0.0):
    """Pads or crops every spatial axis to `shape`, keeping pixel `n // 2` at the centre.

    Padding with `pad_or_crop(image, larger)` is undone exactly by `pad_or_crop(result, original_shape)`.

    Args:
        image: (..., *spatial, channel), NumPy or JAX array; the spatial axes are the `len(shape)` axes before
            the channel axis.
        shape: wanted spatial shape, such as (height, width) or (depth, height, width).
        fill: value of added pixels, in the units of the image (-1024 for CT in HU).

    Returns:
        Array (..., *shape, channel) of the same dtype.

    Raises:
        ValueError: if the image has too few axes, or a wanted size is not positive.
    """
    shape = tuple(shape)
    if image.ndim < len(shape) + 1 or min(shape, default=0) < 1:
        raise ValueError(
            f"pad_or_crop: cannot bring an image of shape {image.shape} to {shape}: give one positive "
            f"size for each spatial axis, and an image whose last axis is the channel"
        )
    first = image.ndim - 1 - len(shape)
    window, padding = [slice(None)] * first, [(0, 0)] * first
    for old, new in zip(image.shape[first:-1], shape, strict=True):
        before = new // 2 - old // 2
        window.append(slice(max(-before, 0), max(-before, 0) + min(old, new)))
        padding.append((max(before, 0), max(new - old - before, 0)))
    image = image[tuple(window)]
    return namespace(image).pad(image, [*padding, (0, 0)], constant_values=fill)
