"""The XML header of ISMRMRD and fastMRI files: only what describes the encoding is ever kept."""

from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from pgm_jax.data.errors import DataError

_BANDWIDTH = "acquisitionSystemInformation/relativeReceiverNoiseBandwidth"


class Header(NamedTuple):
    """What the header says of the first encoding space. Sizes are (x, y, z): readout, phase, partition.

    Attributes:
        trajectory: kind of trajectory, such as "cartesian"; "" if not stated.
        encoded: size of the encoded grid.
        encoded_mm: its field of view in mm, or None.
        kept_mm: field of view to keep in mm, or None.
        centres: index of the centre of k-space along phase and partition; None where not stated.
        calibration: mode of the calibration scan, such as "embedded"; "" if not stated.
        bandwidth: noise bandwidth of the receiver relative to its sampling rate; 1 if not stated.
    """

    trajectory: str
    encoded: tuple[int, int, int]
    encoded_mm: tuple[float, float, float] | None
    kept_mm: tuple[float, float, float] | None
    centres: tuple[int | None, int | None]
    calibration: str
    bandwidth: float

    def kept(self, encoded, axes: str):
        """Computes voxel size and the matrix to keep of a grid that covers the encoded field of view.

        Args:
            encoded: sizes of the grid in the order of `axes`.
            axes: "zyx", or "zxy" for fastMRI, whose rows are the readout.

        Returns:
            (spacing in mm or None, matrix), in the order of `axes`.
        """
        if self.encoded_mm is None:
            return None, tuple(encoded)
        fields, keep = ([mm["xyz".index(axis)] for axis in axes] for mm in (self.encoded_mm, self.kept_mm))
        spacing = [field / size for field, size in zip(fields, encoded, strict=True)]
        # The matrix of the header may be interpolated, so its field of view decides.
        matrix = [min(max(round(k / s), 1), n) for k, s, n in zip(keep, spacing, encoded, strict=True)]
        return tuple(spacing), tuple(matrix)


class _Encoding:
    """Receives the XML piece by piece and drops all but the first encoding, so no patient field is ever kept."""

    def __init__(self):
        self.path, self.spaces, self.found, self.text = [], 0, {}, None

    def start(self, tag, attributes):
        self.path.append(tag.rsplit("}")[-1])
        self.spaces += self.path[1:] == ["encoding"]
        where = "/".join(self.path[1:])
        wanted = where == _BANDWIDTH or (self.path[1:2] == ["encoding"] and self.spaces == 1)
        self.text = [] if wanted else None

    def data(self, text):
        if self.text is not None:
            self.text.append(text)

    def end(self, tag):
        if self.text is not None:
            self.found["/".join(self.path[1:])] = "".join(self.text).strip()
        self.path.pop()
        self.text = None

    def close(self):
        return self.found


def read_header(xml, path) -> Header:
    """Reads the encoding from the XML of ISMRMRD (schema http://www.ismrm.org/ISMRMRD).

    Args:
        xml: the text, bytes or str.
        path: path of the file for the message.

    Returns:
        The `Header`.

    Raises:
        DataError: if it is not XML, or sizes are missing or not positive.
    """
    try:
        parser = ElementTree.XMLParser(target=_Encoding())
        parser.feed(xml)
        found = parser.close()
    except ElementTree.ParseError:
        raise DataError(f"{path}: its ISMRMRD header is not XML: convert the scan again") from None
    try:
        encoded = _triple(found, "encodedSpace/matrixSize", int)
        if encoded is None:
            raise ValueError
        limits = "encoding/encodingLimits/kspace_encoding_step_{}/center".format
        return Header(
            trajectory=found.get("encoding/trajectory", "").lower(),
            encoded=encoded,
            encoded_mm=_triple(found, "encodedSpace/fieldOfView_mm", float),
            kept_mm=_triple(found, "reconSpace/fieldOfView_mm", float)
            or _triple(found, "encodedSpace/fieldOfView_mm", float),
            centres=tuple(int(found[limits(n)]) if limits(n) in found else None for n in (1, 2)),
            calibration=found.get("encoding/parallelImaging/calibrationMode", "").lower(),
            bandwidth=float(found.get(_BANDWIDTH, 1)),
        )
    except ValueError:
        raise DataError(
            f"{path}: its ISMRMRD header has no usable matrix or field of view: convert it again"
        ) from None


def _triple(found, name, kind):
    """Returns (x, y, z), or None if not stated: converters write 0 for a field of view that they do not know."""
    texts = [found.get(f"encoding/{name}/{axis}") for axis in "xyz"]
    if None in texts:
        return None
    values = tuple(kind(text) for text in texts)
    if not np.all(np.isfinite(values)) or min(values) < 0:
        raise ValueError
    return values if min(values) > 0 else None
