"""What scored in a stage is one of its inputs; what becomes of a finished stage when that changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs.disk.files import MANIFEST
from configs.records import Policy
from configs.schema.config import Config
from configs.schema.reward_models import ServedRewardModel
from reward_training.judges import judge
from reward_training.scorer import RewardModelSource
from tasks.running.stage import run_stage
from tasks.running.stage_spec import SCORER, StageSpec, mismatch
from tasks.showing.terminal import Terminal
from tasks.stages import reward_ids
from tasks.stages.evaluate import EvaluateSpec
from tasks.stages.policy import PolicySpec
from tasks.stages.regenerate import RegenerateSpec
from tasks.stages.reward_ids import model_ids
from tests.tasks.stage_kit import LetterSpec, open_in, tiny, write_letters

POLICY = Policy(path="p", id="x", round=0)


@pytest.fixture
def config(workspace: Path) -> Config:
    (workspace / "ids_mine.py").write_text("def reward(problems, completions):\n    return [0.0] * len(completions)\n")
    (workspace / "rubric.md").write_text("Be kind.")
    (workspace / "problems.jsonl").touch()
    rewards = [
        {"name": "mine", "kind": "python", "function": "ids_mine:reward"},
        {"name": "kind", "kind": "judge", "base_url": "http://h/v1", "model": "m", "rubric": "rubric.md"},
        {"name": "family", "kind": "outcome", "checker": "reasoning_gym"},
        {"name": "sums", "kind": "process"},
        {"name": "brief", "kind": "length", "target": 2, "limit": 16},
    ]
    return tiny(f"rewards={json.dumps(rewards)}", "reward_models={}", "evaluation.checker=mine")


def specs(config: Config) -> list[StageSpec]:
    return [
        EvaluateSpec(config=config, round=0, policy=POLICY, initial_policy=None, problems={}, reward_models={}),
        PolicySpec(
            config=config, round=1, policy=POLICY, initial_policy=POLICY, problems="problems.jsonl", reward_models={}
        ),
        RegenerateSpec(config=config, round=0, policies=[POLICY], problems="problems.jsonl", reward_models={}),
    ]


def test_code_prompts_rubrics_and_checkers_are_inputs_of_all_that_they_score(config: Config) -> None:
    for spec in specs(config):
        scorers = {name for name in spec.inputs() if name.startswith((SCORER, "rubric/"))}
        assert scorers == {"rubric/kind", "scorer/mine", "scorer/kind", "scorer/family", "scorer/sums"}
        assert spec.scorers().keys() == scorers
        assert spec.scored_with().keys() == {"reasoning-gym", "openai"}


@pytest.mark.parametrize("changed", ["mine", "kind", "family"])
def test_each_tells_a_change(changed: str, config: Config, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [spec.inputs() for spec in specs(config)]
    if changed == "mine":
        (workspace / "ids_mine.py").write_text(
            "def reward(problems, completions):\n    return [1.0] * len(completions)\n"
        )
    elif changed == "kind":
        monkeypatch.setitem(judge.PROMPTS, "score", ("Grade.", judge.SCORE_VERDICT))
    else:
        monkeypatch.setattr(reward_ids, "version", lambda name: "0.0.1")
    for old, spec in zip(before, specs(config), strict=True):
        new = spec.inputs()
        assert {name for name in new if new[name] != old.get(name)} == {f"scorer/{changed}"}


def test_a_served_model_is_told_by_its_version_and_the_settings_that_are_here(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    def ids(**fields: Any) -> dict[str, str]:
        block = ServedRewardModel(**{"url": "http://a", "model": "m", "path": str(tmp_path), **fields})
        return model_ids({"taste": RewardModelSource(tmp_path, max_length=8, served=block)})

    before = ids()
    assert before.keys() == {"scorer/reward_model/taste"}
    assert ids(url="http://b", model="n", patience_s=1.0) == before
    assert ids(version="2") != before
    (tmp_path / "model.safetensors").write_text("weights that happen to lie here")
    assert ids() == before
    (tmp_path / "tokenizer.json").write_text("{}")
    assert ids() != before


class Scored(LetterSpec):
    """A stage in which a reward scores."""

    code: str = "old"

    def scorers(self) -> dict[str, str]:
        return {"scorer/mine": self.code, "rubric/kind": "same"}

    def inputs(self) -> dict[str, str]:
        return super().inputs() | self.scorers()


class Trained(Scored):
    """One whose work stays."""

    TOLD = reward_ids.OF_REWARDS


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the run warned of."""
    told: list[str] = []
    monkeypatch.setattr(Terminal, "warn", lambda self, message: told.append(message))
    return told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "tiny" / "round_001" / "policy"


def test_what_was_measured_by_other_code_is_measured_anew(tmp_path: Path, folder: Path) -> None:
    run = open_in(tmp_path)
    run_stage(run, Scored(config=tiny(), round=1), folder, write_letters)
    changed = Scored(config=tiny(), round=1, code="new")
    assert mismatch(folder, changed) == "inputs changed: scorer/mine"
    assert run_stage(run, changed, folder, write_letters).inputs["scorer/mine"] == "new"


def test_what_was_trained_by_other_code_stands_and_the_run_says_so(
    tmp_path: Path, folder: Path, warnings: list[str]
) -> None:
    run = open_in(tmp_path)
    first = run_stage(run, Trained(config=tiny(), round=1), folder, write_letters)
    changed = Trained(config=tiny(), round=1, code="new")
    assert run_stage(run, changed, folder, write_letters) == first
    assert "round 1 · policy stands as it is, though since then scorer/mine changed" in " ".join(warnings)
    other = Trained(config=tiny(), round=1, code="new", model_id="model-2")
    assert mismatch(folder, other) == "inputs changed: policy"


def test_a_stage_that_does_not_tell_its_code_stands_which_is_said_once(
    tmp_path: Path, folder: Path, warnings: list[str]
) -> None:
    run, spec = open_in(tmp_path), Scored(config=tiny(), round=1)
    for stage in (folder, folder.with_name("evaluate")):
        run_stage(run, spec, stage, write_letters)
        manifest = json.loads((stage / MANIFEST).read_text())
        del manifest["inputs"]["scorer/mine"]  # as earlier versions wrote it
        (stage / MANIFEST).write_text(json.dumps(manifest))
        assert mismatch(stage, spec) is None
        run_stage(run, spec, stage, write_letters)
    assert " ".join(warnings).count("do not tell by which code their rewards scored; it is taken to be today's") == 1


def test_a_code_that_changes_while_a_stage_works_is_not_taken_for_the_one_it_began_with(
    tmp_path: Path, folder: Path
) -> None:
    code = ["old"]

    class Changing(LetterSpec):
        def scorers(self) -> dict[str, str]:
            return {"scorer/mine": code[0]}

        def inputs(self) -> dict[str, str]:
            return super().inputs() | self.scorers()

    def edit(spec: Changing, out_dir: Path, context: object) -> None:
        code[0] = "new"

    spec = Changing(config=tiny(), round=1)
    assert run_stage(open_in(tmp_path), spec, folder, edit).inputs["scorer/mine"] == "old"
    assert mismatch(folder, spec) == "inputs changed: scorer/mine"


def test_checkpoints_of_an_earlier_version_are_used_and_those_of_other_code_are_not(tmp_path: Path) -> None:
    class Resumable(Scored):
        @property
        def save_steps(self) -> int:
            return 1

    class Earlier(Resumable):
        def scorers(self) -> dict[str, str]:
            return {"rubric/kind": "same"}

    said: list[str] = []
    Earlier(config=tiny(), round=1).checkpoints(tmp_path, said.append).save(1, lambda folder: None)
    assert Resumable(config=tiny(), round=1).checkpoints(tmp_path, said.append).newest() is not None
    Resumable(config=tiny(), round=1).checkpoints(tmp_path, said.append).save(2, lambda folder: None)
    newest = Resumable(config=tiny(), round=1, code="new").checkpoints(tmp_path, said.append).newest()
    assert newest is not None
    assert newest[1].step == 1
    assert "another configuration or other inputs" in said[0]
