"""Wheels that tests write, and a folder as pip's only index."""

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from configs.schema.sources.wheel import WheelSource

TAGS = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def offline_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder, which is pip's only index from now on."""
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(
    index: Path, package: str, files: Mapping[str, str], *, unlisted: Mapping[str, str] = MappingProxyType({})
) -> WheelSource:
    """Write version 1.0 of a package that holds the texts `files` by their paths, and `unlisted` beside what its RECORD lists;
    returns what pins it."""
    name = package.replace("-", "_")
    path = index / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    metadata = {"METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", "WHEEL": TAGS}
    held = {**files, **{f"{about}/{each}": text for each, text in metadata.items()}}
    record = "".join(f"{place},{_recorded(text)}\n" for place, text in held.items()) + f"{about}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in {**held, f"{about}/RECORD": record, **unlisted}.items():
            archive.writestr(place, text)
    return WheelSource(package=package, version="1.0", sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _recorded(text: str) -> str:
    """Digest and size of a file, as RECORD has them."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    return f"sha256={digest},{len(text.encode())}"
