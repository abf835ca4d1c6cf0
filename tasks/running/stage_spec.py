"""What a stage is given, and whether what is on disk is what it would write."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, ValidationError

from configs.config_paths import as_spelled
from configs.disk.checkpoints import Checkpoints
from configs.disk.files import digest, digest_json, read_manifest
from configs.records import Record
from configs.schema.config import Config
from configs.schema.operational import without_operational
from configs.schema.problems import Columns, OverlapConfig
from tasks.runs.cleaned import cleaned_files


class StageSpec(Record):
    """Everything that a stage is given. It is JSON, so that it can be passed to a child job."""

    TOLD: ClassVar[tuple[str, ...]] = ()
    """beginnings of the names of inputs whose change is told of and lets what a finished stage made stand"""

    config: Config
    round: int
    spelled: dict[str, str] = Field(default_factory=dict)
    """paths of the configuration as the digests of a run of an earlier version cover them (`RunFile.spelled`)"""

    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """Blocks of the configuration that affect what the stage writes, as `block` or `block.name`."""

    def depends_on(self) -> tuple[str, ...]:
        """What of the configuration decides what the stage writes, field by field, where that is less than `reads` and another run
        may have written the same (`tasks/running/twins.py`); empty if the stage is never copied."""
        return ()

    @abstractmethod
    def inputs(self) -> dict[str, str]:
        """Digest of each data file, or id of each model, that it reads; no manifests or journals, which hold times."""

    def scorers(self) -> dict[str, str]:
        """Those of the inputs that tell what its rewards score by: code, prompts, rubrics."""
        return {}

    def scored_with(self) -> dict[str, str]:
        """{distribution: version} of the installed packages that its rewards use."""
        return {}

    def config_part(self) -> dict[str, Any]:
        """The blocks that the stage reads, without their operational fields and without later ones at their defaults."""
        return self._part(self.reads())

    def decisive_part(self) -> dict[str, Any]:
        """The same of what it depends on, with the day that templates get, which is no part of digests: a run keeps its own."""
        return self._part(self.depends_on()) | {"run.date": self.config.run.date}

    def _part(self, paths: tuple[str, ...]) -> dict[str, Any]:
        whole = without_operational(self.config)
        found = {path: _block_at(whole, path) for path in paths}
        return {path: block for path, block in found.items() if block is not None}

    def config_digest(self) -> str:
        return self._digest(self.config_part())

    def _digest(self, part: dict[str, Any]) -> str:
        return digest_json(as_spelled(part, self.spelled))

    def older_config_digest(self) -> str:
        """The digest of manifests written by 0.1.0.

        It covers `save_steps` if all of `grpo_config` or `reward_models` is read, and of `problems` no field that came later.
        """
        part = self.config_part()
        if "problems" in part:
            part["problems"] = _problems_of_0_1_0(part["problems"])
        if "grpo_config" in part:
            part["grpo_config"]["save_steps"] = self.config.grpo_config.save_steps
        if "reward_models" in part:
            for name, model in self.config.trained_reward_models.items():
                part["reward_models"][name]["save_steps"] = model.save_steps
        return self._digest(part)

    @property
    def save_steps(self) -> int:
        """Number of steps between checkpoints; 0 if an interrupted stage starts over."""
        return 0

    def checkpoints(self, folder: Path, warn: Callable[[str], None]) -> Checkpoints:
        """The checkpoints in `folder`, of which only those of the same configuration and inputs are used."""
        inputs = self.inputs()
        known_before = {name: value for name, value in inputs.items() if not name.startswith(SCORER)}
        fingerprint, older = (
            digest_json({"config": self.config_digest(), "inputs": some}) for some in (inputs, known_before)
        )
        keep = self.config.keep_checkpoints
        return Checkpoints(folder, fingerprint=fingerprint, older=older, every=self.save_steps, keep=keep, warn=warn)


SCORER = "scorer/"
"""begins the name of an input that is the digest of what a reward scores by. Manifests and checkpoints of earlier versions
lack it: what they do not tell is taken to be as it is today"""
TEMPLATE = ("problems.template_variables", "problems.join_system")
"""what a stage that renders prompts reads of the block `problems`"""


def _block_at(config: dict[str, Any], path: str) -> Any:
    block, _, name = path.partition(".")
    return config[block].get(name) if name else config.get(block)


def mismatch(folder: Path, spec: StageSpec) -> str | None:
    """Why the stage has to run, or None if its manifest matches configuration, inputs and output files.

    Files that were cleaned away count as there.
    """
    try:
        manifest = read_manifest(folder)
    except ValidationError as error:
        return f"its manifest is broken ({error.error_count()} faults)"
    if manifest is None:
        return "not finished before"
    if manifest.config_digest not in (spec.config_digest(), spec.older_config_digest()):
        return f"the configuration that it reads ({', '.join(spec.reads())}) changed"
    if changed := [name for name in differing(manifest.inputs, spec.inputs()) if not name.startswith(spec.TOLD)]:
        return f"inputs changed: {', '.join(changed)}"
    cleaned, outputs = cleaned_files(folder), manifest.outputs.items()
    if changed := [
        name for name, wanted in outputs if name not in cleaned and _digest_or_none(folder / name) != wanted
    ]:
        return f"files changed or are gone: {', '.join(changed)}"
    return None


def differing(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """The names of inputs that are not the same in both; one of SCORER that `old` lacks is unknown, and is left out."""
    unknown = {name for name in new.keys() - old.keys() if name.startswith(SCORER)}
    return sorted(name for name in (old.keys() | new.keys()) - unknown if old.get(name) != new.get(name))


def _problems_of_0_1_0(problems: dict[str, Any]) -> dict[str, Any]:
    """The block `problems` as 0.1.0 wrote it, where fields that came later have their defaults."""
    default = OverlapConfig().model_dump()
    overlap = {name: v for name, v in problems["overlap"].items() if name != "min_share" or v != default["min_share"]}
    if overlap["action"] == default["action"]:
        overlap["action"] = "refuse"
    return problems | {"overlap": overlap, "sources": [_source_of_0_1_0(source) for source in problems["sources"]]}


def _source_of_0_1_0(source: dict[str, Any]) -> dict[str, Any]:
    if "columns" not in source:
        return source
    default, old = Columns().model_dump(), ("question", "answer", "difficulty")
    return source | {"columns": {n: v for n, v in source["columns"].items() if n in old or v != default[n]}}


def _digest_or_none(path: Path) -> str | None:
    return digest(path) if path.is_file() else None
