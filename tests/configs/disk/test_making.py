"""Folders are made whole, by one process at a time."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from configs.disk.making import make_atomically
from configs.errors import ConfigError
from tests.paths import ROOT

PARTS = ("a", "b")
WAIT_S = 0.3
"""in which one that does not wait would be done"""
HALF_AND_HANG = """
import sys, time
from pathlib import Path
from configs.disk.making import make_atomically

def write(temporary):
    (temporary / "a").write_text("of the other")
    print("half", flush=True)
    time.sleep(60)

make_atomically(Path(sys.argv[1]), write, what="it", is_made=Path.is_dir)
"""


def make(folder: Path, text: str = "mine", *, half: Event | None = None, go: Event | None = None) -> None:
    """Make a folder with PARTS; after the first one `half` is set, and `go` waited for."""

    def write(temporary: Path) -> None:
        (temporary / PARTS[0]).write_text(text)
        if half and go:
            half.set()
            assert go.wait(10)
        temporary.mkdir(exist_ok=True)  # as who unpacks an archive does
        (temporary / PARTS[1]).write_text(text)

    make_atomically(folder, write, what="it", is_made=lambda made: (made / PARTS[0]).exists())


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_of_two_that_make_a_folder_one_waits_and_then_finds_it_whole(tmp_path: Path) -> None:
    """The second took the first one's for a leftover and deleted it; the first then named the second half of it for good."""
    folder, half, go = tmp_path / "made", Event(), Event()
    first = Thread(target=make, args=(folder, "first"), kwargs={"half": half, "go": go})
    second = Thread(target=make, args=(folder, "second"))
    first.start()
    assert half.wait(10)
    second.start()
    second.join(WAIT_S)
    assert second.is_alive()
    go.set()
    first.join(10)
    second.join(10)
    assert texts(folder) == {"a": "first", "b": "first"}
    assert names(tmp_path) == ["made"]


def test_a_process_that_lives_is_waited_for_and_a_killed_ones_half_is_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    with _other_process(folder) as other:
        maker = Thread(target=make, args=(folder,))
        maker.start()
        maker.join(WAIT_S)
        [temporary] = tmp_path.iterdir()
        assert texts(temporary) == {"a": "of the other"}
        other.kill()
        maker.join(10)
    assert texts(folder) == {"a": "mine", "b": "mine"}
    assert names(tmp_path) == ["made"]


def test_a_failure_leaves_nothing_and_an_empty_folder_is_filled(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()

    def fail(temporary: Path) -> None:
        (temporary / "a").touch()
        raise PermissionError(13, "of something else")

    with pytest.raises(PermissionError, match="of something else"):
        make_atomically(folder, fail, what="it", is_made=lambda _: False)
    assert names(tmp_path) == ["made"]
    assert names(folder) == []
    make(folder)
    assert texts(folder) == {"a": "mine", "b": "mine"}


def test_something_else_of_that_name_stays_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ConfigError, match=r"it cannot be put into .*file, where something else is; move that away"):
        make(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
    assert names(tmp_path) == ["file"]


@contextmanager
def _other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has made half a folder and goes on."""
    command = [sys.executable, "-c", HALF_AND_HANG, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "half\n"
            yield process
        finally:
            process.kill()
