"""The stage that trains a policy on samples that are there before training begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tasks.stages.lessons as lessons
from configs.disk.files import Journal, digest, read_jsonl
from configs.errors import StageStopped
from configs.records import Completion, Policy, Score
from grpo_train.methods.dpo import TrainingPair
from grpo_train.policies.model import open_policy
from grpo_train.policies.tiny_model import save_tiny_model
from reward_training.scorer import RewardModelSource
from tasks.running.stage import ALONE, Context
from tasks.runs.stage_files import train_result
from tasks.stages.policy import PolicySpec, body
from tests.tasks.offline_samples import REWARDS, best_spec, offline_spec


@pytest.fixture
def given(tmp_path: Path) -> Policy:
    save_tiny_model(tmp_path / "given")
    return open_policy(tmp_path / "given", 0)


def trained(spec: PolicySpec, folder: Path, context: Context = ALONE) -> dict[str, Any]:
    """What result.json holds."""
    body(spec, folder, context)
    result: dict[str, Any] = json.loads((folder / "result.json").read_bytes())
    return result


def pairs_in(folder: Path) -> list[TrainingPair]:
    return read_jsonl(folder / "training_pairs.jsonl", TrainingPair)


def values(folder: Path, key: str) -> dict[int, float]:
    return {line.step: line.value for line in Journal(folder / "journal.jsonl").read() if line.key == key}


@pytest.mark.parametrize("kind", ["dpo", "ipo"])
def test_the_policy_learns_from_the_best_and_worst_samples_of_the_champion(
    given: Policy, tmp_path: Path, kind: str
) -> None:
    """The fifth response to each problem, which scores best, is another policy's."""
    result = trained(offline_spec(given, tmp_path, f"kind: {kind}"), tmp_path / "policy")
    pairs = pairs_in(tmp_path / "policy")
    assert {pair.indices for pair in pairs} == {(3, 0)}
    assert {pair.margin for pair in pairs} == {1.5}  # weight 2 x (3/4 - 0)
    assert len(pairs) == 24
    assert result["num_updates"] == 6
    assert result["untrained"] is None
    assert open_policy(tmp_path / "policy/model", 1).id != given.id
    assert not (tmp_path / "policy/rollouts.jsonl").exists()
    assert sorted(values(tmp_path / "policy", "policy/loss")) == [1, 2, 3, 4, 5, 6]
    # the reference's log-probabilities are computed before, by the policy itself
    assert values(tmp_path / "policy", "memory/models") == dict.fromkeys(range(1, 7), 1.0)


def test_the_champions_samples_are_paid_for_in_tokens_dead_groups_included(given: Policy, tmp_path: Path) -> None:
    result = trained(offline_spec(given, tmp_path, num_dead=5), tmp_path / "policy")
    assert result["tokens"] == {"dead": 5 * 4 * 3, "useful": 19 * 4 * 3}  # 24 problems x 4 responses x 3 tokens
    read = train_result(tmp_path / "policy")
    assert read is not None
    assert read.tokens == result["tokens"]
    counts = {key: values(tmp_path / "policy", f"pairs/{key}") for key in ("made", "dead_groups", "unscored")}
    assert counts == {"made": {0: 19.0}, "dead_groups": {0: 5.0}, "unscored": {0: 0.0}}


def test_with_too_few_pairs_the_policy_is_the_champion_and_the_run_says_so(given: Policy, tmp_path: Path) -> None:
    said: list[str] = []
    context = replace(ALONE, warn=said.append)
    result = trained(offline_spec(given, tmp_path, num_dead=9), tmp_path / "policy", context)
    why = "the samples make 15 preference pairs, fewer than method.min_pairs=16"
    assert said == [f"round 1: {result['untrained']}"]
    assert result["untrained"].startswith(why)
    assert result["num_updates"] == 0
    assert open_policy(tmp_path / "policy/model", 1).id == given.id


def test_a_champion_without_samples_stays(given: Policy, tmp_path: Path) -> None:
    """As after a rollback, where the round before sampled from other policies."""
    spec = offline_spec(given, tmp_path)
    samples = Path(spec.samples.completions if spec.samples else "")
    samples.write_text(samples.read_text().replace(given.id, "another"))
    assert trained(spec, tmp_path / "policy")["untrained"].startswith("none of the samples is of the policy")


def test_samples_are_compared_by_the_weights_of_the_round(given: Policy, tmp_path: Path) -> None:
    """And not by the totals that are stored, which are all equal."""
    scheduled = REWARDS[0].replace("weight: 2}", "weight: 2, schedule: {over: rounds, points: [[1, 0.5], [2, 1]]}}")
    trained(offline_spec(given, tmp_path, "kind: dpo", scheduled), tmp_path / "policy")
    assert {pair.margin for pair in pairs_in(tmp_path / "policy")} == {0.75}  # weight 2 x 0.5 x 3/4


WITH_MODEL = (
    "rewards=[{name: brief, kind: length, target: 2, limit: 16}, {name: taste, kind: reward_model, model: taste, weight: 4}]",
    "reward_models={taste: {kind: trained, labeler: {kind: score}}}",
    "evaluation.checker=brief",
)


class Taste:
    """Likes the second response of a group."""

    name, weight = "taste", 4.0

    def __call__(self, problems: Any, completions: Any) -> list[float]:
        return [float(completion.index == 1) for completion in completions]


@pytest.mark.parametrize(("usable", "indices"), [(True, (1, 0)), (False, (3, 0))])
def test_a_reward_model_of_the_round_scores_the_samples_anew(
    given: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool, indices: tuple[int, int]
) -> None:
    """The stored scores are those of an earlier model, which liked the third response; a model that is not used counts as nothing."""
    spec = offline_spec(given, tmp_path, "kind: dpo", *WITH_MODEL)
    assert spec.samples is not None
    scores = [
        {"parts": {"brief": row.parts["brief"], "taste": float(i % 5 == 2)}, "total": 0.0}
        for i, row in enumerate(read_jsonl(Path(spec.samples.scores), Score))
    ]
    Path(spec.samples.scores).write_text("\n".join(map(json.dumps, scores)) + "\n")
    source = {"taste": RewardModelSource("nowhere", 64)} if usable else {}
    asked: list[Any] = []

    @contextmanager
    def build(configs: Any, models: Any, waiting: Any) -> Iterator[list[Any]]:
        asked.append(([config.name for config in configs], models))
        yield [Taste()] if models else []

    monkeypatch.setattr(lessons, "build_rewards", build)
    trained(spec.model_copy(update={"reward_models": source}), tmp_path / "policy")
    assert asked == [(["taste"], source)]
    assert {pair.indices for pair in pairs_in(tmp_path / "policy")} == {indices}


def test_a_watch_rule_ends_training_and_a_resumed_one_at_the_same_step(given: Policy, tmp_path: Path) -> None:
    """Patience 3 counts over the stop after step 2."""
    rule = "watch=[{metric: dpo/margin, above: -100, patience: 3, action: stop, extra_rounds: 1}]"
    spec = offline_spec(given, tmp_path, "kind: dpo", rule)
    said: list[str] = []
    stopping = replace(ALONE, warn=said.append, should_stop=iter([False, True]).__next__)
    with pytest.raises(StageStopped, match="after step 2 of 6"):
        body(spec, tmp_path / "policy", stopping)
    result = trained(spec, tmp_path / "policy", replace(ALONE, warn=said.append))
    assert (result["num_updates"], result["extra_rounds"]) == (3, 1)
    assert result["stopped_by"].startswith("dpo/margin is")
    assert len(said) == 1
    assert said[0].startswith("round 1, step 3: dpo/margin is")


def test_a_rule_of_ones_own_on_what_nobody_measures_is_told_and_the_default_rules_are_not(
    given: Policy, tmp_path: Path
) -> None:
    said: list[str] = []
    context = replace(ALONE, warn=said.append)
    trained(offline_spec(given, tmp_path), tmp_path / "default", context)
    assert said == []
    rules = "watch=[{metric: dpo/accuracies, below: 0.1}, {metric: policy/entropy, below: 0.02, patience: 5}]"
    trained(offline_spec(given, tmp_path, "kind: dpo", rules), tmp_path / "own", context)
    assert len(said) == 1
    assert "did you mean 'dpo/accuracy'?" in said[0]


def test_the_curriculum_is_handed_on_as_it_came(given: Policy, tmp_path: Path) -> None:
    spec = offline_spec(given, tmp_path).model_copy(update={"curriculum": {"epoch": 1.5, "rates": {"a": 0.5}}})
    trained(spec, tmp_path / "policy")
    assert json.loads((tmp_path / "policy/curriculum.json").read_bytes()) == {"epoch": 1.5, "rates": {"a": 0.5}}


def test_the_samples_are_inputs_of_the_stage_and_of_no_other_methods(given: Policy, tmp_path: Path) -> None:
    spec = offline_spec(given, tmp_path)
    assert spec.samples is not None
    assert spec.inputs()["samples/scores"] == digest(Path(spec.samples.scores))
    others = spec.model_copy(update={"samples": None}).inputs()
    assert spec.inputs().keys() - others.keys() == {"samples/problems", "samples/completions", "samples/scores"}


# ---- best of N ------------------------------------------------------------------------------------------------------


def test_the_policy_writes_once_and_imitates_its_best_responses(given: Policy, tmp_path: Path) -> None:
    """Eight problems, four responses to each; all their tokens are paid for."""
    result = trained(best_spec(given, tmp_path), tmp_path / "policy")
    written = read_jsonl(tmp_path / "policy/completions.jsonl", Completion)
    assert [(row.problem_key, row.index) for row in written[:4]] == [(written[0].problem_key, i) for i in range(4)]
    assert sorted({row.problem_key for row in written}) == [f"{i}" for i in range(8)]
    assert {row.policy_id for row in written} == {given.id}
    assert sum(result["tokens"].values()) == sum(len(row.token_ids) for row in written)
    assert "dead" not in result["tokens"]
    assert values(tmp_path / "policy", "best_of_n/kept") == {0: 8.0}
    assert result["num_updates"] == 6
    assert open_policy(tmp_path / "policy/model", 1).id != given.id


def test_as_many_problems_are_asked_as_the_steps_of_the_loop_would_ask(given: Policy, tmp_path: Path) -> None:
    trained(best_spec(given, tmp_path, "grpo_config.max_updates=1"), tmp_path / "policy")
    written = read_jsonl(tmp_path / "policy/completions.jsonl", Completion)
    assert len({row.problem_key for row in written}) == 4  # one step of 16 responses, four to a problem


def test_a_resumed_training_does_not_write_again(
    given: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = best_spec(given, tmp_path)
    whole = trained(spec, tmp_path / "whole")
    asked = iter([False, True])
    with pytest.raises(StageStopped, match="after step 2 of 6"):  # sampling asks too
        body(spec, tmp_path / "policy", replace(ALONE, should_stop=lambda: _trains(tmp_path) and next(asked)))
    monkeypatch.setattr(lessons, "writing", lambda *_: pytest.fail("it wrote again"))
    assert trained(spec, tmp_path / "policy") == whole
    ids = [open_policy(tmp_path / name / "model", 1).id for name in ("whole", "policy")]
    assert ids[0] == ids[1]


def _trains(root: Path) -> bool:
    return (root / "policy/scores.jsonl").exists()


def test_where_no_response_is_good_enough_the_policy_is_the_champion(given: Policy, tmp_path: Path) -> None:
    said: list[str] = []
    result = trained(
        best_spec(given, tmp_path, "method.min_score=1000"), tmp_path / "policy", replace(ALONE, warn=said.append)
    )
    assert said == [f"round 1: {result['untrained']}"]
    assert result["untrained"].startswith("of the responses to 8 problems none is over method.min_score=1000")
    assert result["tokens"].keys() == {"dead"}
    assert open_policy(tmp_path / "policy/model", 1).id == given.id
