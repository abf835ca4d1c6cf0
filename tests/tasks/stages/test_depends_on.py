"""What evaluation and regeneration depend on: they read nothing of the configuration but that, and give the same for all else.

Members of a comparison copy these stages from each other by it (`tasks/running/twins.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.disk.files import JOURNAL, digest_files
from configs.schema.block import Block
from configs.schema.config import Config
from configs.schema.operational import OPERATIONAL
from grpo_train.problems.splits import shard_name
from tasks.running.stage_spec import StageSpec
from tasks.stages import evaluate, regenerate
from tasks.stages.evaluate import _spec as evaluation_of
from tasks.stages.prepare import prepare
from tasks.stages.regenerate import RegenerateSpec
from tests.tasks.stage_kit import open_untold, tiny

OTHERWISE = (
    "method={kind: rloo}",
    "combination={scale: none, baseline: leave_one_out}",
    "grpo_config.learning_rate=0.5",
    "grpo_config.group_size=2",
    "grpo_config.batch_size=4",
    "grpo_config.temperature=0.3",
    "grpo_config.epochs=3",
    "grpo_config.loss=dr_grpo",
    "grpo_config.schedule=cosine",
    "grpo_config.monitor_kl_every=0",
    "policy.start_from=given",
)
"""what a method may override without another evaluation or regeneration"""
MODELS = (
    "rewards=[{name: correct, kind: outcome, weight: 0.2}, {name: brief, kind: length, target: 2, limit: 16}]",
    "reward_models={}",
    "problems.dev=4",
    "problems.test=4",
    "evaluation.num_samples=1",
    "regeneration.num_problems=4",
    "evaluation.retention={gcd: {kind: generate, problems: {kind: reasoning_gym, family: gcd, size: 4}, "
    "checker: {name: right, checker: reasoning_gym}, max_response_length: 8}}",
)


def specs(root: Path, config: Config) -> dict[str, StageSpec]:
    run = open_untold(root, config)
    prepare(run)
    policy = run.given_policy
    problems = str(run.problems(0, shard_name(0)))
    return {
        "evaluate": evaluation_of(run, 0, policy, {}),
        "regenerate": RegenerateSpec(config=config, round=0, policies=[policy], problems=problems, reward_models={}),
    }


BODIES: dict[str, Any] = {"evaluate": evaluate.body, "regenerate": regenerate.body}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def work(spec: StageSpec, stage: str, folder: Path) -> dict[str, str]:
    """The digests of what the stage writes, without its journal, which has times."""
    folder.mkdir(parents=True)
    BODIES[stage](spec, folder)
    return digest_files(folder, leave_out=(JOURNAL,))


@pytest.mark.parametrize("stage", BODIES)
def test_a_method_does_not_change_what_is_written(workspace: Path, stage: str) -> None:
    one, other = tiny("run.name=one", *MODELS), tiny("run.name=other", *MODELS, *OTHERWISE)
    mine, theirs = specs(workspace, one)[stage], specs(workspace, other)[stage]
    assert mine.decisive_part() == theirs.decisive_part()
    assert work(mine, stage, workspace / "mine") == work(theirs, stage, workspace / "theirs")


@pytest.mark.parametrize("stage", BODIES)
def test_nothing_else_is_read(workspace: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = specs(workspace, tiny(*MODELS))[stage]
    places = {id(block): path for path, block in blocks_of(spec.config, "")}
    read: set[str] = set()
    plain = Block.__getattribute__

    def noting(self: Block, name: str) -> Any:
        field = type(self).model_fields.get(name)
        if id(self) in places and field is not None and OPERATIONAL not in field.metadata:
            read.add(f"{places[id(self)]}{name}")
        return plain(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Block, "__getattribute__", noting, raising=False)
        work(spec, stage, workspace / "mine")
    held = (*spec.decisive_part(), *spec.depends_on())
    undeclared = {path for path in read if not any(f"{path}.".startswith(f"{part}.") for part in held)}
    ways = {path for path in undeclared if any(part.startswith(f"{path}.") for part in held)}
    assert {"seed", "grpo_config.max_response_length", "grpo_config.precision", "rewards"} <= read
    assert undeclared - ways == set()


def blocks_of(value: Any, path: str) -> Iterator[tuple[str, Block]]:
    """(path of its fields with the dot at the end, block) of all blocks in a configuration; items are at the path of their list."""
    if isinstance(value, Block):
        yield path, value
        for name in type(value).model_fields:
            yield from blocks_of(getattr(value, name), f"{path}{name}.")
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from blocks_of(child, f"{path}{key}.")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for child in value:
            yield from blocks_of(child, path)
