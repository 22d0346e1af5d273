"""Writers: what is read back equals what was written, nothing of a patient leaves, and no half file is left."""

import builtins
import errno
import io
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from pgm_jax.data import DataError, Volume, read
from pgm_jax.data.dicom_writer import write_dicom
from pgm_jax.data.nifti_writer import write_nifti
from pgm_jax.data.npy import write_npy
from pgm_jax.data.png import write_png
from pgm_jax.data.volume import canonical
from pgm_jax.data.whole import whole_file
from pgm_jax.data.writing import write

SPACING = (4.0, 3.0, 2.0)
SECRETS = ("Doe^Jane", "PID-4711", "19700101", "Sesame Hospital")
# An oblique head: turned by 20 degrees about z and 10 about x.
_C, _S = np.cos(np.deg2rad([20, 10])), np.sin(np.deg2rad([20, 10]))
TURN = np.array([[_C[0], -_S[0], 0], [_S[0], _C[0], 0], [0, 0, 1]]) @ np.array(
    [[1, 0, 0], [0, _C[1], -_S[1]], [0, _S[1], _C[1]]]
)


def volume(kind="float", units="HU", affine=True):
    """(5, 6, 7) volume without any symmetry, oblique in the scanner."""
    random = np.random.default_rng(0)
    array = {
        "integer": lambda: random.integers(-900, 900, (5, 6, 7, 1)).astype(np.float32),
        "float": lambda: random.normal(size=(5, 6, 7, 1)).astype(np.float32) * 500,
        "complex": lambda: (random.normal(size=(5, 6, 7, 1)) + 1j).astype(np.complex64),
    }[kind]()
    matrix = np.eye(4)
    matrix[:3, :3] = TURN @ np.array([[0, 0, -2.0], [0, -3.0, 0], [4.0, 0, 0]])
    matrix[:3, 3] = (-5.5, 60.25, 7.0)
    return Volume(array, SPACING, matrix if affine else None, units, "Doe^Jane")


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    return text


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npz"])
@pytest.mark.parametrize("kind", ["float", "complex"])
def test_a_volume_is_read_back_as_it_was_written(tmp_path, suffix, kind):
    written = volume(kind)
    write(tmp_path / f"a{suffix}", written)
    back = read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back.array, written.array)
    assert back.array.dtype == written.array.dtype and back.orientation == "SPL"
    # NIfTI keeps the affine in float32.
    np.testing.assert_allclose(back.affine, written.affine, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(back.spacing, SPACING, rtol=1e-6)


def test_nifti_means_the_same_to_nibabel_and_holds_no_name(tmp_path):
    written = volume()
    write_nifti(tmp_path / "a.nii", written)
    image = nibabel.load(tmp_path / "a.nii")
    assert image.header.get_xyzt_units()[0] == "mm"
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    z, y, x = 1, 4, 2
    assert image.get_fdata()[x, y, z] == written.array[z, y, x, 0]
    np.testing.assert_allclose(image.affine @ [x, y, z, 1], written.affine @ [z, y, x, 1], rtol=1e-6)
    assert b"Doe" not in (tmp_path / "a.nii").read_bytes()
    write_nifti(tmp_path / "a.nii.gz", written)
    first = (tmp_path / "a.nii.gz").read_bytes()
    write_nifti(tmp_path / "b.nii.gz", written)
    assert first == (tmp_path / "b.nii.gz").read_bytes()  # neither name nor time of the file


def test_a_volume_of_unknown_orientation_keeps_its_order(tmp_path):
    written = volume(affine=False)._replace(orientation="unknown")
    for suffix in (".nii", ".npz"):
        write(tmp_path / f"a{suffix}", written)
        back = read(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(back.array, written.array)
        assert back.spacing == SPACING
    assert read(tmp_path / "a.npz").orientation == "unknown"
    assert int(nibabel.load(tmp_path / "a.nii").header["sform_code"]) == 0
    write(tmp_path / "b.nii", written._replace(spacing=None))
    assert nibabel.load(tmp_path / "b.nii").header.get_xyzt_units()[0] == "unknown"


def test_npz_with_the_affine_of_other_axes_is_brought_to_the_canonical_ones(tmp_path):
    written = volume("integer")
    turned = written.array[:, ::-1].transpose(2, 1, 0, 3)
    affine = np.asarray(written.affine) @ np.array(
        [[0, 0, 1, 0], [0, -1, 0, 5], [1, 0, 0, 0], [0, 0, 0, 1.0]]
    )
    np.savez(tmp_path / "a.npz", image=turned, affine=affine)
    back = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(back.array, written.array)
    np.testing.assert_allclose(back.affine, written.affine, atol=1e-12)
    np.savez(tmp_path / "b.npz", image=turned, affine=np.eye(3))
    with pytest.raises(DataError, match="affine must be 4 x 4"):
        read(tmp_path / "b.npz")


# DICOM


@pytest.mark.parametrize(
    ("modality", "units", "kind"), [("CT", "HU", "integer"), ("CT", "HU", "float"), ("MR", "a.u.", "float")]
)
def test_dicom_is_read_back(tmp_path, modality, units, kind):
    written = volume(kind, units)
    write_dicom(tmp_path / "out", written, modality=modality)
    back = read(tmp_path / "out")
    span = np.ptp(written.array) / 65535 if modality == "CT" else np.abs(written.array).max() / 32767
    error = np.abs(back.array - written.array).max()
    assert error <= (0 if kind == "integer" else 0.502 * span)
    np.testing.assert_allclose(back.affine, written.affine, atol=1e-9)
    np.testing.assert_allclose(back.spacing, SPACING, rtol=1e-9)
    assert back.units == units


def test_dicom_of_pet_keeps_its_units_and_has_no_intercept(tmp_path):
    written = volume(units="BQML")._replace(array=np.abs(volume().array))
    write_dicom(tmp_path / "out", written, modality="PT")
    back = read(tmp_path / "out")
    assert (
        back.units == "BQML"
        and np.abs(back.array - written.array).max() <= 0.502 * written.array.max() / 32767
    )
    dataset = pydicom.dcmread(tmp_path / "out" / "0002.dcm")
    assert dataset.RescaleIntercept == 0 and dataset.NumberOfSlices == 5 and dataset.ImageIndex == 2
    for name in ("SeriesDate", "SeriesTime", "Units", "CountsSource", "SeriesType", "DecayCorrection"):
        assert dataset.get(name) not in (None, ""), name  # type 1 of the PET modules
    write_dicom(tmp_path / "suv", written._replace(units="SUV"), modality="PT")
    assert pydicom.dcmread(tmp_path / "suv" / "0001.dcm").Units == "GML"


@pytest.mark.parametrize("value", [0.0, 0.25, 1e-20, -3e30])
def test_constant_and_extreme_dicom_pixels(tmp_path, value):
    written = volume()._replace(array=np.full((2, 3, 4, 1), value, np.float32))
    write_dicom(tmp_path / "ct", written)
    write_dicom(tmp_path / "mr", written._replace(units="a.u."), modality="MR")
    for name in ("ct", "mr"):
        np.testing.assert_allclose(read(tmp_path / name).array, written.array, rtol=2e-5)


def source(path, modality="MR", **fields):
    """Writes one slice of an acquisition that is full of patient fields."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    item.SOPClassUID = MRImageStorage if modality == "MR" else CTImageStorage
    item.SOPInstanceUID, item.StudyInstanceUID = generate_uid(), generate_uid()
    item.SeriesInstanceUID, item.FrameOfReferenceUID = generate_uid(), generate_uid()
    item.PatientName, item.PatientID, item.PatientBirthDate, item.InstitutionName = SECRETS
    item.StudyDate, item.AccessionNumber, item.DeviceSerialNumber = "20200202", "ACC-1", "SN-9"
    item.StudyDescription, item.SequenceName = "head of Doe^Jane", "Doe^Jane"
    item.Modality, item.EchoTime, item.ScanningSequence, item.PatientPosition = (
        modality,
        35.5,
        ["SE", "IR"],
        "HFS",
    )
    item.ScanOptions = "Doe^Jane" if modality == "MR" else ""
    item.save_as(path, enforce_file_format=True)
    return item


def test_dicom_carries_settings_but_nothing_of_the_patient(tmp_path):
    (tmp_path / "source").mkdir()
    with pydicom.config.disable_value_validation():
        original = source(tmp_path / "source" / "a.dcm")
    write_dicom(tmp_path / "out", volume(units="a.u."), tmp_path / "source", description="CG-SENSE, 30 steps")
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == [f"{n:04d}.dcm" for n in range(1, 6)]
    content = b"".join((tmp_path / "out" / name).read_bytes() for name in names)
    identifying = [*SECRETS, "20200202", "ACC-1", "SN-9", "head of"]
    identifying += [original[name].value for name in ("SOPInstanceUID", "StudyInstanceUID")]
    identifying += [original.SeriesInstanceUID, original.FrameOfReferenceUID]
    assert not [text for text in identifying if text.encode() in content]
    datasets = [pydicom.dcmread(tmp_path / "out" / name) for name in names]
    for dataset in datasets:
        assert all(element.is_empty for element in dataset if element.tag.group == 0x0010)
        assert list(dataset.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert dataset.PatientIdentityRemoved == "YES"
        assert dataset.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert dataset.EchoTime == 35.5 and list(dataset.ScanningSequence) == ["SE", "IR"]
        assert dataset.PatientPosition == "HFS" and not dataset.ScanOptions
        assert dataset.SOPClassUID == MRImageStorage == dataset.file_meta.MediaStorageSOPClassUID
        assert dataset.SeriesDescription == dataset.DerivationDescription == "CG-SENSE, 30 steps"
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == 5
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({dataset[name].value for dataset in datasets}) == 1
    write_dicom(tmp_path / "again", volume(units="a.u."), modality="MR")
    again = pydicom.dcmread(tmp_path / "again" / "0001.dcm")
    assert again.SeriesInstanceUID != datasets[0].SeriesInstanceUID


def test_dicom_without_warnings_and_with_strict_checks(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    for modality, units in (("CT", "HU"), ("MR", "a.u."), ("PT", "SUV")):
        write_dicom(tmp_path / modality, volume(units=units), modality=modality)
        for file in (tmp_path / modality).iterdir():
            for element in pydicom.dcmread(file).iterall():
                assert element.VR != "DS" or all(len(str(v)) <= 16 for v in np.atleast_1d(element.value))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({}, {"modality": "XA"}, "one of CT, MR, PT"),
        ({"units": "a.u."}, {}, "one of CT, MR, PT"),
        ({"units": "1/mm"}, {"modality": "CT"}, "holds HU"),
        ({"affine": None}, {}, "left and right"),
        ({"affine": np.diag([4.0, 3, 2, 1]) + np.eye(4, k=1) * 0.5}, {}, "not perpendicular"),
        ({"array": np.ones((2, 3, 4, 1), np.complex64)}, {}, "real pixels"),
        ({"array": np.ones((2, 3, 4, 2), np.float32)}, {}, "one channel"),
        ({"array": np.full((2, 3, 4, 1), np.nan, np.float32)}, {}, "24 of 24 pixels are NaN"),
        ({}, {"description": "a" * 65}, "64 printable"),
        ({}, {"template": "no-such-file"}, "holds no DICOM file"),
    ],
)
def test_dicom_writing_is_refused(tmp_path, change, options, words):
    with pytest.raises(DataError, match=words) as error:
        write_dicom(tmp_path / "out", volume()._replace(**change), **options)
    one_line(error)
    assert not list(tmp_path.iterdir())


def test_dicom_template_of_another_modality(tmp_path):
    source(tmp_path / "a.dcm", "CT")
    with pytest.raises(DataError, match="contradicts the template"):
        write_dicom(tmp_path / "out", volume(units="a.u."), tmp_path / "a.dcm", modality="MR")
    (tmp_path / "b.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x01")
    with pytest.raises(DataError, match="damaged or incomplete|states no modality") as error:
        write_dicom(tmp_path / "out", volume(), tmp_path / "b.dcm")
    one_line(error)


# PNG


def decoded(path):
    from matplotlib import image

    pixels = image.imread(path)
    assert pixels.ndim == 2  # grey, no alpha
    return np.rint(pixels * 255)


def marked():
    """HU volume with one bright voxel at the right, anterior and superior corner."""
    array = np.full((5, 6, 7, 1), -1000, np.float32)
    array[4, 0, 0] = 1000
    return Volume(array, (1.0, 1.0, 1.0), volume().affine, "HU", "a")


@pytest.mark.parametrize(
    ("plane", "index", "shape", "corner"),
    [("axial", 4, (6, 7), (0, 0)), ("coronal", 0, (5, 7), (0, 0)), ("sagittal", 0, (5, 6), (0, 0))],
)
def test_png_is_radiological(tmp_path, plane, index, shape, corner):
    write_png(tmp_path / "a.png", marked(), plane=plane, index=index)
    image = decoded(tmp_path / "a.png")
    assert image.shape == shape and image[corner] == 255 and image.sum() == 255


def test_png_window(tmp_path):
    array = np.array([[-200.0, -160.0, 40.0], [239.9, 240.0, 3000.0]], np.float32)[None, :, :, None]
    write_png(tmp_path / "a.png", Volume(array, None, None, "HU", "a"))
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), [[0, 0, 128], [255, 255, 255]])
    write_png(tmp_path / "b.png", Volume(array * 1j, None, None, "a.u.", "a"), window=(100, 300))
    np.testing.assert_array_equal(decoded(tmp_path / "b.png"), [[128, 76, 0], [178, 178, 255]])
    ramp = np.linspace(0, 10, 201, dtype=np.float32)[None, :, None, None]
    write_png(tmp_path / "c.png", Volume(ramp, None, None, "a.u.", "a"))
    expected = np.rint(255 * np.clip(ramp[0, :, :, 0] / np.percentile(ramp, 99.5), 0, 1))
    np.testing.assert_array_equal(decoded(tmp_path / "c.png"), expected)
    write_png(tmp_path / "d.png", Volume(np.zeros((1, 2, 2, 1), np.float32), None, None, "a.u.", "a"))
    assert not decoded(tmp_path / "d.png").any()


def test_png_has_square_pixels(tmp_path):
    """A ramp along z stays a ramp when 3 mm slices are drawn with 1 mm pixels."""
    ramp = np.broadcast_to(np.arange(8.0)[:, None, None, None], (8, 4, 4, 1)).astype(np.float32)
    write_png(
        tmp_path / "a.png", Volume(ramp, (3.0, 1.0, 1.0), None, "a.u.", "a"), plane="coronal", window=(0, 7)
    )
    image = decoded(tmp_path / "a.png")
    assert image.shape == (24, 4)
    heights = np.clip((np.arange(24)[::-1] + 0.5) / 3 - 0.5, 0, 7)  # superior on top
    np.testing.assert_allclose(image, np.rint(255 * heights / 7)[:, None] * np.ones(4), atol=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"plane": "oblique"}, "use axial, coronal, sagittal"),
        ({"index": 5}, "slice 5 is outside the 5"),
        ({"window": (10, 10)}, "has no width"),
    ],
)
def test_png_writing_is_refused(tmp_path, options, words):
    with pytest.raises(DataError, match=words) as error:
        write_png(tmp_path / "a.png", volume(), **options)
    one_line(error)


# Whole or not at all


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.nii", "a.nii.gz", "a.png"])
def test_nothing_is_overwritten_without_being_asked(tmp_path, name):
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(DataError, match="exists already") as error:
        write(tmp_path / name, volume())
    one_line(error)
    assert (tmp_path / name).read_bytes() == b"precious"
    write(tmp_path / name, volume(), overwrite=True)
    assert (tmp_path / name).read_bytes() != b"precious" and len(list(tmp_path.iterdir())) == 1


def test_a_dicom_folder_is_replaced_whole(tmp_path):
    write(tmp_path / "out", volume())
    with pytest.raises(DataError, match="is not empty"):
        write(tmp_path / "out", volume())
    short = volume()._replace(array=volume().array[:2])
    write(tmp_path / "out", short, overwrite=True)
    assert len(list((tmp_path / "out").iterdir())) == 2 and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "out" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match="holds more than .dcm files"):
        write(tmp_path / "out", short, overwrite=True)
    (tmp_path / "file").write_text("keep")
    with pytest.raises(DataError, match="is a file"):
        write(tmp_path / "file", short, overwrite=True)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", short)
    assert len(list((tmp_path / "empty").iterdir())) == 2


class FullDisk(io.BytesIO):
    """A disk with room for some bytes."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def write(self, content):
        Path(self.path).touch()
        if self.tell() + len(content) > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.nii", "a.nii.gz", "a.png"])
def test_a_full_disk_says_so_and_leaves_the_old_file(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"precious")
    monkeypatch.setattr(Path, "open", lambda self, mode="r": FullDisk(self))
    with pytest.raises(DataError, match="No space left on device.*nothing was kept") as error:
        write(tmp_path / name, volume(), overwrite=True)
    one_line(error)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"precious"


def test_a_full_disk_leaves_the_old_series(tmp_path, monkeypatch):
    write(tmp_path / "out", volume())
    before = {file.name: zlib.crc32(file.read_bytes()) for file in (tmp_path / "out").iterdir()}
    real = builtins.open

    def full(path, mode="r", *rest, **options):
        if "0003.dcm" in str(path) and "w" in mode or "x" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode, *rest, **options)

    monkeypatch.setattr(builtins, "open", full)
    with pytest.raises(DataError, match="No space left on device") as error:
        write(tmp_path / "out", volume(), overwrite=True)
    one_line(error)
    monkeypatch.undo()
    assert before == {file.name: zlib.crc32(file.read_bytes()) for file in (tmp_path / "out").iterdir()}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_file_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "deep" / "a.bin") as out:
        out.write(b"half")
        raise KeyboardInterrupt
    assert not list((tmp_path / "deep").iterdir())


@pytest.mark.parametrize(
    ("name", "words"), [("a.jpg", "unknown kind"), ("a.dcm", "unknown kind"), ("folder.nii", "is a folder")]
)
def test_wrong_names_of_outputs(tmp_path, name, words):
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(DataError, match=words) as error:
        write(tmp_path / name, volume())
    one_line(error)


def test_several_channels_go_to_npz_only(tmp_path):
    several = volume()._replace(array=np.ones((2, 3, 4, 2), np.float32))
    write_npy(tmp_path / "a.npz", several)
    assert read(tmp_path / "a.npz").array.shape == (2, 3, 4, 2)
    with pytest.raises(DataError, match="one channel only"):
        write_nifti(tmp_path / "a.nii", several)
    with pytest.raises(DataError, match="too long for NIfTI-1"):
        write_nifti(tmp_path / "a.nii", several._replace(array=np.zeros((1, 1, 40000, 1), np.float32)))


def test_the_test_volume_is_canonical():
    written = volume()
    moved, spacing, affine = canonical(written.array[..., 0], written.affine, "volume")
    np.testing.assert_array_equal(moved, written.array[..., 0])
    np.testing.assert_allclose(spacing, SPACING)
    np.testing.assert_allclose(affine, written.affine)
