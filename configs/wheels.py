"""Fetches Python wheels as files of data: pinned by their digest, neither installed nor run, and unpacked once."""

from __future__ import annotations

import base64
import csv
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from configs.disk.files import digest
from configs.disk.making import make_atomically
from configs.disk.rows.opening import Paths, local_digest
from configs.errors import ConfigError
from configs.schema.config import Config
from configs.schema.measuring.retention import GenerateSuite
from configs.schema.sources.wheel import WheelSource

WHEELS = Path("wheels")
"""where wheels are unpacked, in the workspace"""
SHOWN_DIGITS = 12
"""of a digest in a folder's name"""
DOWNLOAD_TIMEOUT_S = 1800
DIGESTS = ("sha256", "sha384", "sha512")
"""those that a wheel's RECORD may have of its files"""
SIGNATURES = ("RECORD", "RECORD.jws", "RECORD.p7s")
"""files of `*.dist-info` that have no digest in RECORD, as they are made after it"""
_CHECKED: set[Path] = set()


def wheel_folder(wheel: WheelSource) -> Path:
    """Where a wheel is unpacked, whether it was fetched already or not."""
    return WHEELS / f"{wheel.package}-{wheel.version}-{wheel.sha256[:SHOWN_DIGITS]}"


def located(path: Paths, wheel: WheelSource | None, field: str) -> Paths:
    """Where a path, or each of a list, leads: in a wheel into its folder, which is fetched if it is not there yet. `field` is the
    block that names them, for messages.

    Raises:
        ConfigError: the wheel cannot be fetched, has another digest, or a path leads out of it.
    """
    if wheel is None:
        return path
    paths = [path] if isinstance(path, str) else path
    if outside := [one for one in paths if Path(one).is_absolute() or ".." in Path(one).parts]:
        raise ConfigError(
            f"{field}.path={outside[0]!r} leads out of the wheel {wheel.package} {wheel.version}; name a file in it by its path "
            "from the top"
        )
    folder = fetch_wheel(wheel, f"{field}.wheel")
    return str(folder / path) if isinstance(path, str) else [str(folder / one) for one in paths]


def data_digest(path: Paths, wheel: WheelSource | None) -> str | None:
    """Digest of data: of the wheel that holds them, which says what is in it before it is fetched, or else of what is at the path
    (`local_digest`)."""
    return local_digest(path) if wheel is None else wheel.sha256


def data_wheels(config: Config) -> dict[str, WheelSource]:
    """{field: wheel} of sources of problems and of suites whose files lie in one."""
    blocks: dict[str, Any] = {f"problems.sources.{i}": source for i, source in enumerate(config.problems.sources)}
    for name, suite in config.evaluation.retention.items():
        field = f"evaluation.retention.{name}"
        blocks |= {f"{field}.problems": suite.problems} if isinstance(suite, GenerateSuite) else {field: suite}
    return {f"{field}.wheel": wheel for field, block in blocks.items() if (wheel := getattr(block, "wheel", None))}


def fetch_wheel(wheel: WheelSource, field: str) -> Path:
    """The folder with the wheel's files, which is made if it is not there yet. A process checks each once.

    Raises:
        ConfigError: the wheel cannot be fetched, has another digest, the workspace is read-only, or the folder does not hold the
            wheel's files as its RECORD lists them.
    """
    folder = wheel_folder(wheel)
    if not (folder.is_dir() and any(folder.iterdir())):
        make_atomically(
            folder,
            lambda temporary: _unpack(wheel, temporary, field),
            what=f"the wheel {wheel.package}",
            is_made=lambda made: record_of(made) is not None,
        )
    _refuse_changed(folder, wheel, field)
    return folder


def record_of(folder: Path) -> Path | None:
    """The file in which an unpacked wheel lists its files; None in a folder that is no wheel."""
    records = list(folder.glob("*.dist-info/RECORD"))
    return records[0] if len(records) == 1 else None


def _unpack(wheel: WheelSource, folder: Path, field: str) -> None:
    with tempfile.TemporaryDirectory(prefix="regroup-wheel-") as scratch:
        file = downloaded(wheel, Path(scratch), field, otherwise="name a file of your own without `wheel`")
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
    if (change := _change(folder)) is not None:
        raise ConfigError(
            f"{field}: {file.name} is not what it says itself that it holds: {change}; name another version"
        )


def _refuse_changed(folder: Path, wheel: WheelSource, field: str) -> None:
    place = folder.absolute()
    if place in _CHECKED:
        return
    if (change := _change(folder)) is not None:
        raise ConfigError(
            f"{folder} is not {field}={wheel.package} {wheel.version} as it was fetched: {change}; remove the folder and run "
            "`regroup fetch CONFIG`"
        )
    _CHECKED.add(place)


def _change(folder: Path) -> str | None:
    """What differs first between an unpacked wheel and its RECORD, in words that name the file; None if nothing does."""
    if (record := record_of(folder)) is None:
        return "it has no *.dist-info/RECORD"
    with record.open(encoding="utf-8", errors="replace", newline="") as file:
        try:
            listed = {row[0]: row[1] if len(row) > 1 else "" for row in csv.reader(file) if row}
        except csv.Error as error:
            return f"{record.relative_to(folder)} cannot be read ({error})"
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    unsigned = {record.with_name(name).relative_to(folder).as_posix() for name in SIGNATURES}
    for name in sorted((listed.keys() | present) - unsigned):
        if name not in present:
            return f"{name} is missing"
        if name not in listed:
            return f"RECORD does not list {name}"
        if not _has_digest(folder / name, listed[name]):
            return f"{name} is not the file that RECORD lists"
    return None


def _has_digest(path: Path, expected: str) -> bool:
    """Whether a file has the digest that RECORD gives it, such as `sha256=` with URL-safe base64 without padding."""
    algorithm, _, text = expected.partition("=")
    if algorithm not in DIGESTS:
        return False
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).digest()
    return base64.urlsafe_b64encode(found).decode().rstrip("=") == text.rstrip("=")


def downloaded(wheel: WheelSource, folder: Path, field: str, *, otherwise: str) -> Path:
    """The wheel in `folder`, from the package index; `otherwise` is what can be done instead, for messages.

    Raises:
        ConfigError: it cannot be fetched, or has another digest.
    """
    file = _download(f"{wheel.package}=={wheel.version}", folder, otherwise)
    if (sha256 := digest(file)) != wheel.sha256:
        raise ConfigError(
            f"{file.name} has sha256 {sha256}, not {field}.sha256={wheel.sha256}; do not use it, or pin this digest if you trust it"
        )
    return file


def _download(pinned: str, folder: Path, otherwise: str) -> Path:
    """Download a wheel by pip, with the index, proxy and find-links that this machine is configured with."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), pinned]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"pip took over {DOWNLOAD_TIMEOUT_S} s to fetch {pinned}; check the network") from error
    if "No module named pip" in result.stderr:
        raise ConfigError(f"{sys.executable} has no pip to fetch {pinned} with; run `{sys.executable} -m ensurepip`")
    wheels = list(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        raise ConfigError(
            f"pip could not fetch {pinned} ({_last_line(result.stderr)}); check the network, put the wheel in a folder "
            f"and name that folder in PIP_FIND_LINKS, or {otherwise}"
        )
    return wheels[0]


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2] or "no message"
