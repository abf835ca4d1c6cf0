"""The twin of a stage: the same stage of a run beside this one, which wrote what this one would.

Members of a comparison differ in how they train, so those of one seed measure the same policy in round 0 and sample from it
alike: the first one works, and the others copy.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from configs.disk.files import Manifest, read_manifest
from configs.errors import ConfigError
from tasks.running.run import Run
from tasks.running.stage_spec import StageSpec, mismatch
from tasks.runs.cleaned import cleaned_files
from tasks.runs.run_file import RunFile, read_run, stored_config
from tasks.runs.versions import versions
from tasks.runs.workspace import run_folder


@dataclass(frozen=True)
class Twin:
    """A finished stage to copy."""

    run: str
    """which wrote it"""
    folder: Path
    manifest: Manifest

    @property
    def seconds(self) -> float:
        """What its work took."""
        return self.manifest.seconds

    def copy(self, out_dir: Path) -> None:
        """Copy what it wrote."""
        for name in self.manifest.outputs:
            (out_dir / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, out_dir / name)


def find_twin(run: Run, spec: StageSpec, folder: Path) -> Twin | None:
    """The first stage beside that agrees with this one in all that decides what it writes, and has its files as they were written."""
    if not spec.depends_on():
        return None
    key = folder.relative_to(run.folder)
    for name in run.beside:
        try:
            file = read_run(run.workspace, name)
        except ConfigError:  # not begun, or of a version that this one cannot read
            continue
        if (twin := _twin(file, run_folder(run.workspace, name) / key, spec)) is not None:
            return twin
    return None


def _twin(file: RunFile, folder: Path, spec: StageSpec) -> Twin | None:
    """The stage in `folder` if it is finished, whole, and what `spec` would write."""
    theirs = spec.model_copy(update={"config": stored_config(file), "spelled": file.spelled})
    if theirs.decisive_part() != spec.decisive_part() or mismatch(folder, theirs) is not None or cleaned_files(folder):
        return None
    manifest = read_manifest(folder)
    assert manifest is not None, "it was just compared"
    return (
        Twin(manifest.copied_from or file.name, folder, manifest)
        if manifest.versions == theirs.scored_with() | versions()
        else None
    )
