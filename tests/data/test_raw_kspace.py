"""K-space readers against files made here by the letter of the formats."""

import logging
import warnings

import h5py
import numpy as np
import pytest

from pgm_jax.data import DataError, read
from pgm_jax.data.nifti_writer import write_nifti
from pgm_jax.data.reading_kspace import read_kspace
from pgm_jax.operators.sense import Sense

SECRETS = ("Doe^Jane", "PID-4711", "19700101", "Sesame Hospital", "measured by Bob")

IDX = np.dtype(
    [
        (n, "<u2")
        for n in ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase")
    ]
    + [(n, "<u2") for n in ("repetition", "set", "segment")]
    + [("user", "<u2", (8,))]
)
HEAD = np.dtype(
    [
        ("version", "<u2"), ("flags", "<u8"), ("measurement_uid", "<u4"), ("scan_counter", "<u4"),
        ("acquisition_time_stamp", "<u4"), ("physiology_time_stamp", "<u4", (3,)), ("number_of_samples", "<u2"),
        ("available_channels", "<u2"), ("active_channels", "<u2"), ("channel_mask", "<u8", (16,)),
        ("discard_pre", "<u2"), ("discard_post", "<u2"), ("center_sample", "<u2"), ("encoding_space_ref", "<u2"),
        ("trajectory_dimensions", "<u2"), ("sample_time_us", "<f4"), ("position", "<f4", (3,)),
        ("read_dir", "<f4", (3,)), ("phase_dir", "<f4", (3,)), ("slice_dir", "<f4", (3,)),
        ("patient_table_position", "<f4", (3,)), ("idx", IDX),
        ("user_int", "<i4", (8,)), ("user_float", "<f4", (8,)),
    ]
)  # fmt: skip
assert HEAD.itemsize == 340  # the size that the standard gives
VLEN = h5py.special_dtype(vlen=np.dtype("float32"))
ACQUISITION = np.dtype([("head", HEAD), ("traj", VLEN), ("data", VLEN)])
# Header of the documentation: 140 lines, of which 84 were measured about their line 28; 116 are kept.
DOCUMENTED = ((8, 140, 1), (16.0, 280.0, 5.0), (8.0, 232.0, 5.0), 28)


def xml(
    encoded, encoded_mm, kept_mm, centre=None, trajectory="cartesian", calibration="", bandwidth=None, z=None
):
    def triple(name, values):
        return (
            f"<{name}>"
            + "".join(f"<{a}>{v}</{a}>" for a, v in zip("xyz", values, strict=True))
            + f"</{name}>"
        )

    def space(name, matrix, mm):
        return f"<{name}>{triple('matrixSize', matrix)}{triple('fieldOfView_mm', mm)}</{name}>"

    limits = "".join(
        f"<kspace_encoding_step_{n}><minimum>0</minimum><maximum>9</maximum><center>{c}</center></kspace_encoding_step_{n}>"
        for n, c in ((1, centre), (2, z))
        if c is not None
    )
    system = (
        ""
        if bandwidth is None
        else f"<relativeReceiverNoiseBandwidth>{bandwidth}</relativeReceiverNoiseBandwidth>"
    )
    encoding = (
        f"<encoding>{space('encodedSpace', encoded, encoded_mm)}{space('reconSpace', encoded, kept_mm)}"
        f"<encodingLimits>{limits}</encodingLimits><trajectory>{trajectory}</trajectory>"
        f"<parallelImaging><calibrationMode>{calibration}</calibrationMode></parallelImaging></encoding>"
    )
    return (
        '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><subjectInformation>'
        f"<patientName>{SECRETS[0]}</patientName><patientID>{SECRETS[1]}</patientID>"
        f"<patientBirthdate>{SECRETS[2]}</patientBirthdate></subjectInformation><acquisitionSystemInformation>"
        f"<institutionName>{SECRETS[3]}</institutionName>{system}</acquisitionSystemInformation>{encoding}"
        f"<encoding>{space('encodedSpace', (99, 99, 99), (1, 1, 1))}</encoding>"
        f"<userParameters><userParameterString><name>note</name><value>{SECRETS[4]}</value></userParameterString>"
        "</userParameters></ismrmrdHeader>"
    ).encode()


def flags(*bits):
    return sum(1 << (bit - 1) for bit in bits)


def acquisition(samples, points=None, place=(1.0, 2.0, 3.0), **fields):
    """One readout (coils, samples); fields of the header and of its counters by name."""
    head = np.zeros((), HEAD)
    head["number_of_samples"], head["active_channels"] = samples.shape[1], samples.shape[0]
    head["center_sample"], head["sample_time_us"] = samples.shape[1] // 2, 5.0
    head["read_dir"], head["phase_dir"], head["slice_dir"] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    head["position"] = place
    for name, value in fields.items():
        (head["idx"] if name in IDX.names else head)[name] = value
    if points is not None:
        head["trajectory_dimensions"] = points.shape[-1]
    flat = np.ascontiguousarray(samples, np.complex64).view(np.float32).ravel()
    return head, np.float32([]) if points is None else np.float32(points).ravel(), flat


def scan(path, header, acquisitions, group="dataset"):
    with h5py.File(path, "w") as file:
        text = file.create_dataset(f"{group}/xml", (1,), dtype=h5py.special_dtype(vlen=bytes))
        text[0] = header
        data = file.create_dataset(f"{group}/data", (len(acquisitions),), maxshape=(None,), dtype=ACQUISITION)
        for n, values in enumerate(acquisitions):
            record = np.empty((1,), ACQUISITION)
            record[0]["head"], record[0]["traj"], record[0]["data"] = values
            data[n] = record[0]
    return path


def samples(*shape, seed=0):
    random = np.random.default_rng(seed)
    return (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 450 and not any(secret in text for secret in SECRETS)
    return text


# fastMRI


def fastmri(path, kspace, mask=None, header=None):
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        file.attrs["patient_id"], file.attrs["acquisition"] = SECRETS[0], "AXT2"
        if mask is not None:
            file["mask"] = mask
        if header is not None:
            file["ismrmrd_header"] = header
    return path


def test_fastmri_multicoil(tmp_path):
    """Rows are the readout at twice the field of view; two columns at the left are padding."""
    stored = samples(3, 2, 12, 10)
    stored[..., :2] = 0
    header = xml((12, 10, 1), (48.0, 20.0, 5.0), (24.0, 20.0, 5.0))
    scan = read_kspace(fastmri(tmp_path / "a.h5", stored, header=header))
    np.testing.assert_array_equal(scan.array, stored)
    assert scan.array.dtype == np.complex64 and scan.dimensions == 2
    np.testing.assert_array_equal(scan.mask, (np.arange(10) > 1)[None, None])
    assert scan.encoded == (3, 12, 10) and scan.matrix == (3, 6, 10) and scan.spacing == (5.0, 4.0, 2.0)
    assert scan.affine is None and scan.noise is None and scan.trajectory is None
    assert scan.name == "k-space" and not any(secret in repr(scan) for secret in SECRETS)
    part = read_kspace(tmp_path / "a.h5", slices=range(1, 3))
    np.testing.assert_array_equal(part.array, stored[1:])
    assert part.matrix == (2, 6, 10)


def test_fastmri_mask_and_single_coil(tmp_path):
    stored, mask = samples(2, 4, 6), np.array([1, 0, 1, 1, 0, 1], np.float32)
    scan = read_kspace(fastmri(tmp_path / "a.h5", stored, mask))
    assert scan.array.shape == (2, 1, 4, 6) and scan.spacing is None and scan.matrix == (2, 4, 6)
    np.testing.assert_array_equal(scan.array[:, 0], stored * mask)
    np.testing.assert_array_equal(scan.mask[0, 0], mask != 0)
    image = scan.volume(np.ones((2, 4, 6)))
    assert image.orientation == "unknown" and image.array.shape == (2, 4, 6, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kspace": samples(4, 6)}, "neither"),
        ({"mask": np.zeros(6)}, "mask is empty"),
        ({"mask": np.ones(5)}, "does not fit 6 columns"),
        ({"kspace": np.ones((2, 4, 6), np.float32)}, "k-space is complex"),
        ({"kspace": samples(2, 4, 6) * np.nan}, "48 of 48 samples are NaN"),
        ({"header": b"<a>"}, "not XML"),
        ({"header": b"<ismrmrdHeader/>"}, "no usable matrix"),
        ({"header": xml((4, 6, 1), (-1, 2, 3), (1, 2, 3))}, "no usable matrix"),
    ],
)
def test_wrong_fastmri_files(tmp_path, change, words):
    path = fastmri(tmp_path / "a.h5", **{"kspace": samples(2, 4, 6), **change})
    with pytest.raises(DataError, match=words) as error:
        read_kspace(path)
    one_line(error)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped"])
def test_damaged_hdf5(tmp_path, damage):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", data=samples(2, 4, 16, 16), chunks=(1, 4, 16, 16), fletcher32=True)
    content = bytearray(path.read_bytes())
    place = content.find(samples(2, 4, 16, 16).tobytes()[:64])
    content[place] ^= 0x55
    broken = {
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "text": b"hello" * 999,
        "flipped": content,
    }
    path.write_bytes(broken[damage])
    with pytest.raises(DataError, match="damaged or incomplete HDF5") as error:
        read_kspace(path)
    assert str(path) in one_line(error)


# ISMRMRD


def test_lines_go_where_the_documentation_puts_them(tmp_path):
    """Line 0 of 84 goes to 42, line 28 to the centre 70; 116 of the 140 lines are kept."""
    lines = samples(84, 2, 8)
    path = scan(
        tmp_path / "a.h5",
        xml(*DOCUMENTED),
        [acquisition(lines[n], kspace_encode_step_1=n) for n in np.random.default_rng(1).permutation(84)],
    )
    got = read_kspace(path)
    assert got.array.shape == (1, 2, 140, 8) and got.encoded == (1, 140, 8) and got.matrix == (1, 116, 4)
    np.testing.assert_array_equal(got.array[0, :, 42:126], lines.swapaxes(0, 1))
    np.testing.assert_array_equal(got.mask[0, :, 0], (np.arange(140) >= 42) & (np.arange(140) < 126))
    assert got.mask.shape == (1, 140, 1) and got.spacing == (5.0, 2.0, 2.0)
    assert not any(secret in repr(got) for secret in SECRETS)


def small(nx=6, ny=4, nz=1, **options):
    mm = (2.0 * nx, 3.0 * ny, 4.0 * nz)
    return xml((nx, ny, nz), mm, options.pop("kept_mm", mm), options.pop("centre", ny // 2), **options)


def cartesian(array, **fields):
    """Readouts of (slices, coils, ky, kx)."""
    return [
        acquisition(plane[:, n], kspace_encode_step_1=n, slice=s, place=(1.0, 2.0, 3.0 + 5 * s), **fields)
        for s, plane in enumerate(array)
        for n in range(array.shape[2])
    ]


def test_averages_and_noise(tmp_path):
    """Noise is scaled to the bandwidth of the image and to its averages; its covariance is E n n^H."""
    array = samples(2, 3, 4, 6)
    mixing = samples(3, 3, seed=5)
    noise = np.einsum("cd,dn->cn", mixing, samples(3, 4000, seed=6))
    header = small(bandwidth=0.8)
    acquisitions = [
        *(
            acquisition(part, flags=flags(19), sample_time_us=2.0, slice=7)
            for part in np.split(noise, 8, axis=1)
        ),
        *cartesian(array + 1, average=0),
        *cartesian(array - 1, average=1),
        acquisition(samples(3, 6) * 1e3, flags=flags(23)),
        acquisition(samples(3, 6) * 1e3, flags=flags(24)),
        acquisition(samples(3, 9) * 1e3, encoding_space_ref=1),
    ]
    got = read_kspace(scan(tmp_path / "a.h5", header, acquisitions))
    np.testing.assert_allclose(got.array, array, atol=1e-6)
    assert got.mask.shape == (1, 1, 1) and got.mask.all()
    expected = noise @ noise.conj().T / 4000 * (2.0 / (5.0 * 0.8)) / 2
    np.testing.assert_allclose(got.noise, expected, rtol=1e-5)
    # Pure noise has E n n^H = 2 M M^H for unit noise per real component.
    np.testing.assert_allclose(got.noise, mixing @ mixing.conj().T / 2, rtol=0.2, atol=0.2)


def test_slices_are_sorted_by_position_and_placed(tmp_path):
    """Odd slices were measured first; the image is cropped, turned to the canonical order and written."""
    array, order = samples(4, 1, 4, 6), [0, 2, 1, 3]
    read_dir, phase_dir, slice_dir = (0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)  # a sagittal scan
    acquisitions = [
        acquisition(
            array[s][:, n], kspace_encode_step_1=n, slice=order[s], place=(10 + 5.0 * s, 20.0, 30.0),
            read_dir=read_dir, phase_dir=phase_dir, slice_dir=slice_dir,
        )
        for s in range(4)
        for n in range(4)
    ]  # fmt: skip
    path = scan(tmp_path / "a.h5", small(kept_mm=(6.0, 12.0, 4.0)), acquisitions)
    got = read_kspace(path)
    np.testing.assert_array_equal(got.array, array)
    assert got.spacing == (5.0, 3.0, 2.0) and got.matrix == (4, 4, 3)
    # Voxel (s, 2, 1), the centre, lies at the position of slice s; LPS to RAS turns two signs.
    for s in range(4):
        np.testing.assert_allclose(got.affine @ [s, 2, 1, 1], [-(10 + 5 * s), -20, 30, 1], atol=1e-5)
    # One step along columns, the read direction, is 2 mm towards the feet.
    np.testing.assert_allclose(got.affine[:3, 2], [0, 0, -2], atol=1e-6)
    image = np.zeros((4, 4, 6), np.float32)
    image[1, 3, 4] = 7.0  # (1, 3, 2) after cropping
    volume = got.volume(image)
    place = got.affine @ [1, 3, 2, 1]
    found = np.argwhere(volume.array[..., 0] == 7.0)[0]
    np.testing.assert_allclose(volume.affine @ [*found, 1], place, atol=1e-5)
    assert volume.spacing == (2.0, 3.0, 5.0)  # superior, posterior, left
    write_nifti(tmp_path / "a.nii", volume)
    np.testing.assert_array_equal(read(tmp_path / "a.nii").array, volume.array)
    part = read_kspace(path, slices=range(1, 3))
    np.testing.assert_array_equal(part.array, array[1:3])
    np.testing.assert_allclose(part.affine @ [0, 2, 1, 1], got.affine @ [1, 2, 1, 1])


def test_a_scan_of_a_known_image_gives_it_back(tmp_path):
    """What `Sense` would measure, with twice the field of view along the readout, comes back by its adjoint."""
    random = np.random.default_rng(0)
    image = np.zeros((5, 12))
    image[:, 3:9] = random.normal(size=(5, 6))
    operator = Sense.single(5, 12, np.ones(12))
    measured = np.asarray(operator(image[..., None].astype(np.complex64)))
    path = scan(tmp_path / "a.h5", small(12, 5, kept_mm=(12.0, 15.0, 4.0)), cartesian(measured[None]))
    got = read_kspace(path)
    back = operator.adjoint(got.array[0])
    volume = got.volume(np.asarray(back)[None, ..., 0])
    np.testing.assert_allclose(volume.array[0, ..., 0], image[:, 3:9], atol=1e-5)
    fastmri(
        tmp_path / "b.h5", measured.swapaxes(-1, -2)[None], header=small(12, 5, kept_mm=(12.0, 15.0, 4.0))
    )
    got = read_kspace(tmp_path / "b.h5")
    back = Sense.single(12, 5, np.ones(5)).adjoint(got.array[0])
    np.testing.assert_allclose(
        got.volume(np.asarray(back)[None, ..., 0]).array[0, ..., 0], image[:, 3:9].T, atol=1e-5
    )


def test_partial_echo_reversed_and_discarded_samples(tmp_path):
    full = samples(1, 6)
    padded = np.pad(full, ((0, 0), (3, 1)))
    acquisitions = [
        acquisition(full, kspace_encode_step_1=0),
        acquisition(full[:, ::-1], kspace_encode_step_1=1, flags=flags(22), center_sample=2),
        acquisition(full[:, 2:], kspace_encode_step_1=2, center_sample=1),  # the echo comes early
        acquisition(padded, kspace_encode_step_1=3, center_sample=6, discard_pre=3, discard_post=1),
    ]  # fmt: skip
    got = read_kspace(scan(tmp_path / "a.h5", small(), acquisitions))
    np.testing.assert_array_equal(got.array[0, 0, [0, 1, 3]], np.repeat(full, 3, axis=0))
    np.testing.assert_array_equal(got.array[0, 0, 2], np.pad(full[0, 2:], (2, 0)))
    assert got.mask.shape == (1, 4, 6) and got.mask.sum() == 22


def test_volume_and_its_place(tmp_path):
    array = samples(2, 4, 4, 6)  # coils, kz, ky, kx
    acquisitions = [
        acquisition(array[:, z, y], kspace_encode_step_1=y, kspace_encode_step_2=z)
        for z in range(4)
        for y in range(4)
        if (z + y) % 2
    ]
    path = scan(tmp_path / "a.h5", small(nz=4, z=2), acquisitions)
    got = read_kspace(path)
    checks = np.indices((4, 4)).sum(0) % 2 == 1
    np.testing.assert_array_equal(got.array, array * checks[None, :, :, None])
    np.testing.assert_array_equal(got.mask, checks[..., None])
    assert got.dimensions == 3 and got.encoded == (4, 4, 6) and got.spacing == (4.0, 3.0, 2.0)
    np.testing.assert_allclose(got.affine @ [2, 2, 3, 1], [-1, -2, 3, 1])
    with pytest.raises(DataError, match="one whole slab"):
        read_kspace(path, slices=range(1))


@pytest.mark.parametrize(("mode", "imaged"), [("embedded", [0, 1, 2]), ("separate", [0, 1])])
def test_calibration_lines(tmp_path, mode, imaged):
    lines = samples(4, 1, 6)
    kinds = [0, flags(21), flags(20)]
    acquisitions = [acquisition(lines[n], kspace_encode_step_1=n, flags=kind) for n, kind in enumerate(kinds)]
    got = read_kspace(scan(tmp_path / "a.h5", small(calibration=mode), acquisitions))
    assert np.flatnonzero(got.mask[0, :, 0]).tolist() == imaged
    assert np.flatnonzero(np.any(got.calibration[0, 0], axis=1)).tolist() == [1, 2]
    np.testing.assert_array_equal(got.calibration[0, 0, 2], lines[2, 0])


@pytest.mark.parametrize("unit", ["cycles a pixel", "cycles a field of view"])
def test_trajectories(tmp_path, unit):
    """(kx, ky) in either usual unit become cycles a field of view, rows first."""
    angles = np.pi * np.arange(5) / 5
    radius = (np.arange(6) - 3) / 6
    points = radius[None, :, None] * np.stack([np.cos(angles), np.sin(angles)], -1)[:, None]  # (5, 6, 2)
    size = np.array([6, 4])
    stored = points if unit == "cycles a pixel" else points * size
    data = samples(2, 3, 5, 6)  # slices, coils, readouts, samples
    acquisitions = [
        acquisition(data[s, :, n], stored[n], slice=s, place=(0, 0, 5.0 * s))
        for n in range(5)
        for s in range(2)
    ]
    got = read_kspace(scan(tmp_path / "a.h5", small(trajectory="radial"), acquisitions))
    np.testing.assert_array_equal(got.array, data)
    np.testing.assert_allclose(got.trajectory, (points * size)[..., ::-1], atol=1e-6)
    assert got.mask is None and got.encoded == (2, 4, 6) and got.dimensions == 2


def test_several_images_must_be_selected(tmp_path):
    array = samples(2, 1, 4, 6)
    acquisitions = [
        acquisition(array[c][:, n], kspace_encode_step_1=n, contrast=c, repetition=r)
        for c in range(2)
        for r in range(3)
        for n in range(4)
    ]
    path = scan(tmp_path / "a.h5", small(), acquisitions)
    with pytest.raises(DataError, match="2 values of contrast, 3 values of repetition") as error:
        read_kspace(path)
    one_line(error)
    got = read_kspace(path, select={"contrast": 1, "repetition": 2})
    np.testing.assert_array_equal(got.array[0], array[1])
    for wrong, words in (({"contrast": 5}, "no image acquisition"), ({"echo": 1}, "cannot be selected")):
        with pytest.raises(DataError, match=words):
            read_kspace(path, select=wrong)


def test_scans_without_a_place(tmp_path, caplog):
    """Simulated files state no directions, uneven slices have no affine; both keep their spacing."""
    array = samples(3, 1, 4, 6)
    nowhere = scan(tmp_path / "a.h5", small(), cartesian(array, read_dir=(0, 0, 0)))
    got = read_kspace(nowhere)
    assert got.affine is None and got.spacing == (4.0, 3.0, 2.0)
    uneven = [
        acquisition(array[s][:, n], kspace_encode_step_1=n, slice=s, place=(0, 0, s * s * 5.0))
        for s in range(3)
        for n in range(4)
    ]
    with caplog.at_level(logging.WARNING, "pgm_jax.data"):
        assert read_kspace(scan(tmp_path / "b.h5", small(), uneven)).affine is None
    assert "not evenly spaced" in caplog.text
    unknown = xml((6, 4, 1), (0, 0, 0), (0, 0, 0), 2)
    assert read_kspace(scan(tmp_path / "c.h5", unknown, cartesian(array))).spacing is None


@pytest.mark.parametrize("kind", ["other coils", "too few"])
def test_a_useless_noise_scan_is_left_out(tmp_path, kind, caplog):
    noise = samples(2, 50) if kind == "other coils" else samples(3, 2)
    acquisitions = [acquisition(noise, flags=flags(19)), *cartesian(samples(1, 3, 4, 6))]
    with caplog.at_level(logging.WARNING, "pgm_jax.data"):
        assert read_kspace(scan(tmp_path / "a.h5", small(), acquisitions)).noise is None
    assert "left out" in caplog.text


def broken(kind, array):
    """(header, acquisitions) of a scan with one fault."""
    lines = cartesian(array)
    if kind == "epi":
        return small(trajectory="epi"), lines
    if kind == "radial":
        return small(trajectory="radial"), lines
    if kind == "compressed":
        return small(), cartesian(array, flags=flags(53))
    if kind == "line":
        return small(), [*lines, acquisition(array[0][:, 0], kspace_encode_step_1=4)]
    if kind == "readout":
        return small(), [acquisition(samples(3, 8), kspace_encode_step_1=0)]
    if kind == "echo":
        return small(), [acquisition(samples(3, 5), kspace_encode_step_1=0, center_sample=5)]
    if kind == "coils":
        return small(), [*lines, acquisition(samples(2, 6))]
    if kind == "numbers":
        return small(), [(lines[0][0], lines[0][1], lines[0][2][:-2])]
    if kind == "nan":
        return small(), cartesian(array * np.nan)
    if kind == "calibration":
        return small(), cartesian(array, flags=flags(20))
    if kind == "noise":
        return small(), cartesian(array, flags=flags(19))
    if kind == "nothing":
        return small(), []
    if kind == "slabs":
        return small(nz=4), [*lines, *cartesian(samples(2, 3, 4, 6))]
    points = np.full((6, 2), 3.14)  # radians a pixel
    return xml((64, 64, 1), (64, 64, 4), (64, 64, 4), trajectory="spiral"), [
        acquisition(samples(3, 6), points)
    ]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("epi", "EPI"), ("radial", "radial scan without its trajectory"), ("compressed", "compressed"),
        ("line", "line 4 falls outside the encoded grid of 4"), ("readout", "readout of 8 samples"),
        ("echo", "readout of 5 samples with centre 5"), ("coils", r"numbers of coils \[2, 3\]"),
        ("numbers", "acquisition 0 has 34 numbers"), ("nan", "72 of 72 samples are NaN"),
        ("calibration", "calibration lines only"), ("noise", "no image acquisition"), ("nothing", "no acquisition"),
        ("slabs", "3-D scan of 2 slabs"), ("radians", "neither 1/2 cycle a pixel"),
    ],
)  # fmt: skip
def test_wrong_ismrmrd_files(tmp_path, kind, words):
    path = scan(tmp_path / "a.h5", *broken(kind, samples(1, 3, 4, 6)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(DataError, match=words) as error:
            read_kspace(path)
    one_line(error)


def test_other_hdf5_files(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = np.ones(3)
    with pytest.raises(DataError, match="neither 'kspace'"):
        read_kspace(tmp_path / "a.h5")
    scan(tmp_path / "b.h5", small(), cartesian(samples(1, 1, 4, 6)))
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file["dataset"].copy("xml", file.create_group("second"))
        file["second/data"] = np.ones(3)
    with pytest.raises(DataError, match="2 scans"):
        read_kspace(tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5", "a") as file:
        del file["dataset"]
    with pytest.raises(DataError, match="not ISMRMRD acquisitions"):
        read_kspace(tmp_path / "b.h5")


def test_the_ismrmrd_package_writes_what_we_read(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    array = samples(2, 3, 4, 6)
    file = ismrmrd.Dataset(str(tmp_path / "a.h5"))
    file.write_xml_header(small())
    noise = ismrmrd.Acquisition.from_array(samples(3, 50, seed=3))
    noise.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    file.append_acquisition(noise)
    for s in range(2):
        for n in range(4):
            item = ismrmrd.Acquisition.from_array(np.ascontiguousarray(array[s][:, n]))
            item.idx.kspace_encode_step_1, item.idx.slice, item.center_sample = n, s, 3
            item.read_dir[:], item.phase_dir[:], item.slice_dir[:] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
            item.position[:] = (0, 0, 7.0 * s)
            file.append_acquisition(item)
    file.close()
    got = read_kspace(tmp_path / "a.h5")
    np.testing.assert_array_equal(got.array, array)
    assert got.spacing == (7.0, 3.0, 2.0)
    expected = samples(3, 50, seed=3)
    np.testing.assert_allclose(got.noise, expected @ expected.conj().T / 50, rtol=1e-5)


# NPY and NPZ


def test_npy_and_npz_kspace(tmp_path):
    array = samples(2, 3, 4, 6)
    array[:, :, 1] = 0
    for shape, name in (((0, 0), "a"), ((0,), "b"), ((), "c")):
        np.save(tmp_path / f"{name}.npy", array[shape])
        got = read_kspace(tmp_path / f"{name}.npy")
        expected = array[shape].reshape((1,) * len(shape) + array[shape].shape)
        np.testing.assert_array_equal(got.array, expected)
        assert got.mask.shape == (1, 4, 1) and got.mask[0, :, 0].tolist() == [True, False, True, True]
    mask = np.array([1, 0, 0, 1, 1, 1])
    noise = np.eye(3) * (1 + 0j)
    np.savez(
        tmp_path / "d.npz", kspace=array, mask=mask, noise=noise, matrix=[9, 4, 4], spacing=[3.0, 2.0, 1.0]
    )
    got = read_kspace(tmp_path / "d.npz", slices=range(1, 2), name="knee")
    np.testing.assert_array_equal(got.array[0], array[1] * mask)
    assert got.mask.shape == (1, 1, 6) and got.matrix == (1, 4, 4) and got.spacing == (3.0, 2.0, 1.0)
    np.testing.assert_array_equal(got.noise, noise)
    np.savez(tmp_path / "e.npz", kspace=array, dimensions=3)
    got = read_kspace(tmp_path / "e.npz")
    assert got.dimensions == 3 and got.encoded == (3, 4, 6) and got.array.shape == (2, 3, 4, 6)
    by_slice = np.arange(8).reshape(2, 4, 1) % 3 > 0
    np.savez(tmp_path / "f.npz", kspace=array, mask=by_slice)
    np.testing.assert_array_equal(read_kspace(tmp_path / "f.npz", slices=range(1, 2)).mask[0], by_slice[1])


def test_npz_trajectory(tmp_path):
    points = np.stack(np.meshgrid(np.arange(-2, 2.0), np.arange(-3, 3.0), indexing="ij"), -1)
    np.savez(tmp_path / "a.npz", kspace=samples(3, 4, 6), trajectory=points, matrix=[1, 4, 6])
    got = read_kspace(tmp_path / "a.npz")
    assert got.array.shape == (1, 3, 4, 6) and got.encoded == (1, 4, 6)
    np.testing.assert_array_equal(got.trajectory, points)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"kspace": samples(4)}, "needs 2 to 4 axes"),
        ({"kspace": samples(4, 6), "mask": np.zeros(6)}, "mask is empty"),
        ({"kspace": samples(4, 6) * 0}, "mask is empty"),
        ({"kspace": samples(4, 6), "mask": np.ones(5)}, "does not broadcast"),
        ({"kspace": samples(4, 6), "noise": np.eye(2)}, "not the finite covariance of 1 coils"),
        ({"kspace": samples(4, 6), "spacing": np.zeros(3)}, "three positive numbers"),
        ({"kspace": samples(4, 6), "matrix": [1, 5, 6]}, "larger than the grid"),
        ({"kspace": samples(4, 6), "maskk": np.ones(6)}, "name the k-space 'kspace'"),
        ({"a": samples(4, 6), "b": samples(4, 6)}, "name the k-space 'kspace'"),
        ({"kspace": samples(4, 6), "dimensions": 4}, "dimensions 4 is not known"),
        ({"kspace": samples(4, 6).real}, "k-space is complex"),
        ({"kspace": samples(4, 6), "trajectory": np.ones((4, 6, 2))}, "needs the size of the image"),
        (
            {"kspace": samples(4, 6), "trajectory": np.ones((4, 5, 2)), "matrix": [1, 4, 6]},
            "does not fit k-space",
        ),
        (
            {"kspace": samples(4, 6), "trajectory": np.full((4, 6, 2), 2.5), "matrix": [1, 4, 6]},
            "leaves the band",
        ),
        (
            {"kspace": samples(4, 6), "trajectory": np.full((4, 6, 2), np.nan), "matrix": [1, 4, 6]},
            "leaves the band",
        ),
    ],
)
def test_wrong_arrays(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=words) as error:
        read_kspace(tmp_path / "a.npz")
    one_line(error)


def test_wrong_kspace_requests(tmp_path):
    np.save(tmp_path / "a.npy", samples(2, 1, 4, 6))
    np.savez(tmp_path / "b.npz", kspace=samples(2, 4, 6), dimensions=3)
    (tmp_path / "c.txt").write_text("x")
    requests = [
        ("a.npy", {"slices": range(2, 3)}, "has slices 0 to 1"),
        ("a.npy", {"slices": range(0)}, "has slices 0 to 1"),
        ("a.npy", {"select": {"contrast": 0}}, "has no counters"),
        ("b.npz", {"slices": range(1)}, "reconstructed as a whole"),
        ("c.txt", {}, "unknown kind of k-space"),
        ("d.h5", {}, "no such file"),
    ]
    for name, options, words in requests:
        with pytest.raises(DataError, match=words) as error:
            read_kspace(tmp_path / name, **options)
        one_line(error)
    with pytest.raises(DataError, match="neither the grid"):
        read_kspace(tmp_path / "a.npy").volume(np.ones((3, 4, 6)))
