"""Which files a path names, and what is in one: it is unpacked, and its first bytes tell the encoding."""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from configs.disk.files import digest, digest_files, digest_json
from configs.errors import ConfigError

Paths = str | list[str]
"""a file, a pattern such as `data/*.parquet`, a folder or a hub id; or a list of files and patterns"""
PACKED = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz")
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""{end of a file's name: format}"""
OTHER_FILES = (".txt", ".zip", ".tar", ".tgz", ".7z", ".xlsx", ".xls", ".pkl", ".npz", ".h5", ".md", ".yaml", ".yml")
"""ends of names that no hub id has, beside those of SUFFIXES and PACKED"""


def is_pattern(path: str) -> bool:
    return glob.has_magic(path) and not Path(path).expanduser().exists()


def looks_like_path(path: str) -> bool:
    """Whether a path cannot be the id of a data set on a hub, which is `name` or `owner/name`.

    >>> looks_like_path("data/train.jsonl.gz"), looks_like_path("./data"), looks_like_path("AI-MO/NuminaMath-1.5")
    (True, True, False)
    """
    is_file = path.lower().endswith((*SUFFIXES, *PACKED, *OTHER_FILES))
    return is_file or is_pattern(path) or path.startswith((".", "/", "~")) or "\\" in path or path.count("/") > 1


def local_files(path: Paths, field_name: str) -> list[Path]:
    """The files that a path, a pattern or a list of these names, in order; a folder stands for itself.

    Raises:
        ConfigError: one of them names nothing.
    """
    names = [path] if isinstance(path, str) else path
    return [found for name in names for found in _files_of(name, field_name)]


def _files_of(name: str, field_name: str) -> list[Path]:
    if is_pattern(name):
        found = sorted(Path(match) for match in glob.glob(str(Path(name).expanduser()), recursive=True))
        files = [match for match in found if match.is_file()]
        if not files:
            raise ConfigError(f"{name} matches no file; set {field_name}, relative to {Path.cwd()}")
        return files
    file = Path(name).expanduser()
    if not file.exists():
        raise ConfigError(f"{name} does not exist; set {field_name}, relative to {Path.cwd()}")
    return [file]


def local_digest(path: Paths) -> str | None:
    """Digest of what is at a path: of a file, of all files of a folder, or of all that a pattern or list names; `gone`
    where a path leads nowhere, None for a data set of a hub."""
    if isinstance(path, str) and not is_pattern(path):
        place = Path(path).expanduser()
        if place.is_dir():
            return digest_json(digest_files(place))
        return digest(place) if place.exists() else "gone" if looks_like_path(path) else None
    names = [path] if isinstance(path, str) else path
    files = sorted(
        {match for name in names for match in [name, *glob.glob(str(Path(name).expanduser()), recursive=True)]}
    )
    return digest_json({file: digest(Path(file)) for file in files if Path(file).is_file()})


def format_of(path: Path) -> str | None:
    """What a file's name says about its format; None where it says nothing.

    >>> format_of(Path("a.jsonl.gz")), format_of(Path("a.TSV")), format_of(Path("a"))
    ('jsonl', 'tsv', None)
    """
    bare = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return SUFFIXES.get(bare.suffix.lower())


def unpacked(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked where they are packed by gzip, zstd, bzip2 or xz, whatever its name."""
    with path.open("rb") as file:
        head = file.read(6)
    for mark, opened in OPENERS.items():
        if head.startswith(mark):
            packed: IO[bytes] = opened(path)
            return packed
    return path.open("rb")


def _zstd(path: Path) -> IO[bytes]:
    import pyarrow  # takes a while to import

    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))


OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"\x28\xb5\x2f\xfd": _zstd,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""{first bytes of a packed file: how it is opened}"""


def encoding_of(head: bytes) -> str:
    """UTF-8, or UTF-16 where the byte order mark says so; the mark is left out of the text."""
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
