"""Readers: orientation, units, damaged files, and no patient field anywhere."""

import gzip
import logging

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from pgm_jax.core import MissingExtra
from pgm_jax.data import DataError, read, read_dicom, read_npy

SPACING = (4.0, 3.0, 2.0)  # (z, y, x) in mm
SECRETS = ("Doe^Jane", "PID-4711", "19700101", "Sesame Hospital")


def anatomy():
    """(z, y, x) volume without any symmetry."""
    return np.random.default_rng(0).integers(-900, 900, (5, 6, 7)).astype(np.float32)


def nifti_bytes(tmp_path, codes, suffix=".nii.gz", name="head"):
    """Writes the volume stored along the given axis codes, for example LIA."""
    ras = anatomy()[:, ::-1, ::-1].transpose(2, 1, 0)  # (x, y, z) towards right, anterior, superior
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])
    affine[:3, 3] = (-5.0, 6.0, 7.0)
    image = nibabel.Nifti1Image(ras, affine)
    ornt = nibabel.orientations.axcodes2ornt(codes)
    image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), ornt))
    assert "".join(nibabel.aff2axcodes(image.affine)) == codes
    path = tmp_path / f"{name}{suffix}"
    nibabel.save(image, path)
    return path


def dicom_slice(path, z, series="1.2.3", number=7, modality="CT", tilt=None, **fields):
    """Writes one CT slice at height index z, full of patient fields."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    item.SOPClassUID, item.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    item.PatientName, item.PatientID, item.PatientBirthDate, item.InstitutionName = SECRETS
    item.Modality, item.SeriesInstanceUID, item.SeriesNumber = modality, series, number
    stored = ((anatomy()[z] + 1000) / 2).astype(np.int16)
    item.Rows, item.Columns = stored.shape
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 1
    item.RescaleSlope, item.RescaleIntercept = 2, -1000
    item.PixelSpacing, item.SliceThickness = [SPACING[1], SPACING[2]], SPACING[0]
    item.ImageOrientationPatient = tilt or [1, 0, 0, 0, 1, 0]
    item.ImagePositionPatient = [-10.0, -20.0, 30.0 + SPACING[0] * z]
    item.PixelData = stored.tobytes()
    for field, value in fields.items():
        setattr(item, field, value)
    item.save_as(path, enforce_file_format=True)
    return path


def series(tmp_path, **fields):
    folder = tmp_path / "series"
    folder.mkdir()
    for z, file in enumerate("dbeac"):  # file order is not slice order
        dicom_slice(folder / f"{file}.dcm", z, **fields)
    return folder


def even():
    """The volume as 16-bit storage with slope 2 keeps it."""
    return ((anatomy() + 1000) / 2).astype(np.int16) * 2.0 - 1000


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LIA", "LPS", "PSR", "ASL"])
def test_nifti_orientations_read_alike(tmp_path, codes):
    volume = read(nifti_bytes(tmp_path, codes))
    np.testing.assert_array_equal(volume.array[..., 0], anatomy())
    assert volume.spacing == SPACING and volume.orientation == "SPL" and volume.array.dtype == np.float32
    # index (0, 0, 0) is the right, anterior, inferior corner, wherever the file began
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], [-5 + 6 * 2, 6 + 5 * 3, 7, 1])
    np.testing.assert_allclose(volume.affine[:3, :3] @ [1, 1, 1], [-2, -3, 4])


def test_nifti_oblique_takes_the_nearest_axes(tmp_path):
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([2.0, 3.0, 4.0])
    nibabel.save(nibabel.Nifti1Image(anatomy().transpose(2, 1, 0), affine), tmp_path / "a.nii")
    volume = read(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.array[..., 0], anatomy()[:, ::-1, ::-1])
    np.testing.assert_allclose(volume.spacing, SPACING, rtol=1e-6)


def test_nifti_in_micrometres_and_scaled(tmp_path):
    image = nibabel.Nifti1Image(np.ones((2, 3, 4), np.int16), np.diag([500.0, 500.0, 2000.0, 1.0]))
    image.header.set_xyzt_units("micron")
    image.header["descrip"] = b"Doe^Jane"
    image.header.set_slope_inter(0.5, 3.0)
    nibabel.save(image, tmp_path / "a.nii")
    volume = read(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.spacing, (2.0, 0.5, 0.5))
    assert np.all(volume.array == 3.5) and "Doe" not in repr(volume)


def test_nifti_without_orientation_warns(tmp_path, caplog):
    image = nibabel.Nifti1Image(np.ones((2, 3, 4), np.float32), None)
    nibabel.save(image, tmp_path / "a.nii")
    with caplog.at_level(logging.WARNING, "pgm_jax.data"):
        read(tmp_path / "a.nii")
    assert "does not state its orientation" in caplog.text


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    return text


@pytest.mark.parametrize("damage", ["truncated", "flipped", "not gzip", "header only", "empty"])
def test_damaged_nifti(tmp_path, damage):
    path = nifti_bytes(tmp_path, "RAS")
    content = path.read_bytes()
    middle = len(content) // 2
    broken = {
        "truncated": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :],
        "not gzip": b"hello" * 100,
        "header only": gzip.compress(gzip.decompress(content)[:352]),
        "empty": b"",
    }
    path.write_bytes(broken[damage])
    with pytest.raises(DataError, match="damaged or incomplete NIfTI") as error:
        read(path)
    assert str(path) in one_line(error)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels(tmp_path, bad):
    array = anatomy()
    array[1, 2, 3] = bad
    np.save(tmp_path / "a.npy", array)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    for name in ("a.npy", "a.nii.gz"):
        with pytest.raises(DataError, match="1 of 210 pixels are NaN or infinite") as error:
            read(tmp_path / name)
        one_line(error)


def test_nifti_wrong_rank_and_colour(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 3, 4, 5), np.float32), np.eye(4)), tmp_path / "t.nii")
    with pytest.raises(DataError, match="4 axes"):
        read(tmp_path / "t.nii")
    colour = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), tmp_path / "c.nii")
    with pytest.raises(DataError, match="colour"):
        read(tmp_path / "c.nii")
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 3, 4, 1), np.float32), np.eye(4)), tmp_path / "o.nii")
    assert read(tmp_path / "o.nii").array.shape == (4, 3, 2, 1)


def test_npy_and_npz(tmp_path):
    np.save(tmp_path / "a.npy", anatomy()[0])
    volume = read(tmp_path / "a.npy")
    np.testing.assert_array_equal(volume.array[0, :, :, 0], anatomy()[0])
    assert volume.spacing is None and volume.orientation == "unknown"
    np.savez(tmp_path / "b.npz", image=anatomy() * 1j, spacing=np.array(SPACING), units="HU")
    volume = read(tmp_path / "b.npz")
    assert volume.spacing == SPACING and volume.units == "HU" and volume.array.dtype == np.complex64
    np.savez(tmp_path / "c.npz", a=anatomy(), b=anatomy())
    np.savez(tmp_path / "d.npz", image=anatomy(), spacing=np.zeros(3))
    np.save(tmp_path / "e.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.save(tmp_path / "f.npy", np.zeros((1, 2, 3, 4, 5)))
    (tmp_path / "g.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:100])
    for name, words in {
        "c.npz": "name the one to read", "d.npz": "spacing", "e.npy": "without pickled", "f.npy": "5 axes",
        "g.npy": "not a readable NPY",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=words) as error:
            read_npy(tmp_path / name)
        one_line(error)


def test_unknown_suffix_and_missing_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="unknown kind of file"):
        read(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "b.nii")


def test_dicom_series(tmp_path):
    folder = series(tmp_path)
    (folder / "readme.txt").write_text("not an image")
    volume = read(folder)
    np.testing.assert_array_equal(volume.array[..., 0], even())
    assert volume.spacing == SPACING and volume.units == "HU" and volume.orientation == "SPL"
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], [10, 20, 30, 1])  # LPS to RAS
    np.testing.assert_allclose(volume.affine[:3, :3] @ [1, 1, 1], [-2, -3, 4])


def test_dicom_feet_first_order_and_mirrored_axes(tmp_path):
    # Rows run to the right and columns to anterior: the same head lies turned in the files.
    volume = read(series(tmp_path, tilt=[-1, 0, 0, 0, -1, 0]))
    np.testing.assert_array_equal(volume.array[..., 0], even()[:, ::-1, ::-1])


def test_dicom_agrees_with_nifti_of_the_same_head(tmp_path):
    image = nibabel.Nifti1Image(even().transpose(2, 1, 0), np.diag([-2.0, -3.0, 4.0, 1.0]) + 0.0)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(read(tmp_path / "a.nii").array, read(series(tmp_path)).array)


def test_dicom_single_slice_and_no_geometry(tmp_path):
    volume = read(dicom_slice(tmp_path / "one.dcm", 2))
    assert volume.array.shape == (1, 6, 7, 1) and volume.spacing == SPACING
    file = dicom_slice(tmp_path / "two.dcm", 2, ImagePositionPatient=None)
    volume = read(file)
    assert volume.spacing is None and volume.orientation == "unknown"


def test_no_patient_field_survives(tmp_path, caplog, recwarn):
    # Values that break their own rules make pydicom warn, and its warnings quote the value.
    with pydicom.config.disable_value_validation():
        folder = series(tmp_path)
        dicom_slice(folder / "f.dcm", 0, series="9.9", number=8, PatientBirthDate="19700101 Doe^Jane" * 9)
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(DataError) as error:
            read(folder)
        volume = read_dicom(folder, series=7)
    told = repr(volume) + str(error.value) + caplog.text + "".join(str(w.message) for w in recwarn.list)
    assert not any(secret in told for secret in SECRETS) and volume.name == "dicom" and volume.subject == ""
    assert "CT series 7 (5 slices)" in str(error.value) and "CT series 8 (1 slices)" in str(error.value)
    assert "9.9" not in one_line(error)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(z=4, BurnedInAnnotation="YES"), "patient data in its pixels"),
        (dict(z=4, PhotometricInterpretation="MONOCHROME1"), "not plain grey"),
        (dict(z=4, NumberOfFrames=3), "multi-frame"),
        (dict(z=4), "share one position"),
        (dict(z=4, ImagePositionPatient=[-10, -20, 300]), "some are missing"),
        (dict(z=4, tilt=[0, 1, 0, 0, 0, -1]), "differ in direction"),
        (dict(z=4, ImagePositionPatient=None), "cannot be sorted"),
        (dict(z=4, PixelData=b"\0" * 20), "damaged or incomplete DICOM"),
    ],
)
def test_dicom_refusals(tmp_path, change, words):
    folder = series(tmp_path)
    dicom_slice(folder / "z.dcm", **change)
    with pytest.raises(DataError, match=words) as error:
        read(folder)
    one_line(error)


def test_dicom_of_another_size(tmp_path):
    folder = series(tmp_path)
    dicom_slice(folder / "z.dcm", 4, Rows=7, Columns=6, ImagePositionPatient=[-10, -20, 50])
    with pytest.raises(DataError, match="size"):
        read(folder)


@pytest.mark.parametrize("keep", [50, 140, 500])
def test_truncated_dicom(tmp_path, keep):
    file = dicom_slice(tmp_path / "one.dcm", 0)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError) as error:
        read(file)
    assert str(file) in one_line(error)


def test_compressed_dicom_without_a_decoder(tmp_path, monkeypatch):
    file = dicom_slice(tmp_path / "one.dcm", 0)
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + b"\0" * 60])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(file)
    with pytest.raises(DataError, match="JPEG 2000.*pylibjpeg") as error:
        read(file)
    one_line(error)


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match="no DICOM image"):
        read(tmp_path)


@pytest.mark.parametrize("suffix, module", [(".nii", "nibabel"), (".dcm", "pydicom")])
def test_missing_extra(tmp_path, monkeypatch, suffix, module):
    import importlib

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    (tmp_path / f"a{suffix}").write_bytes(b"x")
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match=rf'{module} is not installed: run  pip install "pgm_jax\[io\]"'):
        read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_nrrd(tmp_path, encoding):
    head = (
        "NRRD0004\n# comment: Doe\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 7 6 5\n"
        f"space directions: (2,0,0) (0,3,0) (0,0,4)\nendian: little\nencoding: {encoding}\n"
        "space origin: (-10,-20,30)\n\n"
    )
    body = anatomy().astype("<i2").tobytes()  # C order of (z, y, x) is NRRD's fastest-first x, y, z
    path = tmp_path / "a.nrrd"
    path.write_bytes(head.encode() + (gzip.compress(body) if encoding == "gzip" else body))
    volume = read(path)
    np.testing.assert_array_equal(volume.array[..., 0], anatomy())
    assert volume.spacing == SPACING
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="NRRD"):
        read(path)
