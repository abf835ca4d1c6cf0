"""docs/metrics.md defines every key that the code writes, and none that it does not."""

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.records import Completion, Estimate, Policy, Problem, RewardModelReport
from configs.schema.config import Config
from configs.schema.grpo import GrpoConfig
from configs.schema.methods.method import PpoMethod
from configs.schema.rewards import JudgeRewardConfig
from grpo_train.following import Serving
from grpo_train.measuring.evaluation import evaluate
from grpo_train.methods.dpo import METRICS as PAIR_METRICS
from grpo_train.methods.dpo import PairsFound
from grpo_train.observers.gaps import Gaps
from grpo_train.policies.model import load_policy, open_policy, save_policy
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from grpo_train.sampling.generation import sample
from grpo_train.step import StepResult
from grpo_train.trainer import train
from grpo_train.updating.advantages import ValueTargets
from grpo_train.updating.critic import Critic, ValueModel
from reward_training.judges.judge import JudgeReward
from reward_training.reward import Found, Reward, Unscored
from reward_training.reward_models.heads import add_head
from reward_training.reward_models.trainer import METRICS
from reward_training.scorer import build_rewards
from tasks.stages.evaluate import estimates
from tasks.stages.reward_model import metrics as report_metrics
from tests.grpo_train.sampling.vllm.serving import serve
from tests.paths import ROOT

GLOSSARY = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
CONFIG = {
    "policy": {"path": "builtin:tiny"},
    "problems": {"sources": [{"kind": "reasoning_gym", "family": "chain_sum", "size": 100}]},
    "rewards": [{"name": "correct", "kind": "outcome"}, {"name": "brief", "kind": "length", "target": 4, "limit": 12}],
    "grpo_config": {
        "group_size": 2,
        "batch_size": 8,
        "max_response_length": 8,
        "max_updates": 2,
        "epochs": 2,
        "response_cache": {"share": 0.5},
        "kl_coefficient": 0.1,
        "refill": 1,
        "temperature": 1.0,
    },
    "curriculum": {"kind": "threshold", "difficulty": "policy"},
    "evaluation": {"num_samples": 2, "bootstrap_draws": 10},
    "budget": {"generated_tokens": 100_000},
}


def _defined(section: str) -> set[str]:
    """Keys of a section's tables, with what stands in angle brackets as it is."""
    text = GLOSSARY.partition(f"## {section}")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))


def _generic(keys: set[str]) -> set[str]:
    keys = {re.sub(r"(objective|greedy|sampled|unscored)/(correct|brief)", r"\1/<objective>", key) for key in keys}
    keys = {re.sub(r"/(dev|test)/", "/<split>/", key) for key in keys}
    keys = {re.sub(r"greedy_accuracy/[xy]", "greedy_accuracy/<source>", key) for key in keys}
    return {re.sub(r"_at_\d+", "_at_<k>", key) for key in keys}


@dataclass(frozen=True)
class FirstUnscored:
    """A reward that cannot score the first completion that it is given."""

    reward: Reward

    @property
    def name(self) -> str:
        return self.reward.name

    @property
    def weight(self) -> float:
        return self.reward.weight

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> Sequence[Found]:
        return [Unscored("no answer"), *self.reward(problems, completions)[1:]]


def _problems(split: str) -> list[Problem]:
    return [
        Problem(
            key=f"{split}{i}",
            prompt=[{"role": "user", "content": f"{i} + 4 ="}],
            answer=str(i + 4),
            source="xy"[i % 2],
            split=split,
        )
        for i in range(4)
    ]


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.model_validate(CONFIG)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = tmp_path_factory.mktemp("policy") / "model"
    tokenizer = build_tiny_tokenizer()
    save_policy(build_tiny_model(tokenizer), tokenizer, folder, round_index=0)
    return open_policy(folder, round_index=0)


def _training(
    policy: Policy,
    folder: Path,
    *,
    max_staleness: int,
    method: str = "grpo",
    curriculum: str = "threshold",
    **changes: object,
) -> set[str]:
    """Keys of two steps on what a server writes; `brief` calls some responses right and others wrong."""
    tokenizer = build_tiny_tokenizer()
    steps: list[StepResult] = []
    with serve(build_tiny_model(tokenizer), tokenizer) as served:
        vllm = {"urls": [served.url], "max_staleness": max_staleness}
        grpo = CONFIG["grpo_config"] | {"vllm": vllm} | changes  # type: ignore[operator]
        config = Config.model_validate(
            CONFIG
            | {"evaluation": {"checker": "brief"}, "method": {"kind": method}, "grpo_config": grpo}
            | ({} if curriculum == "threshold" else {"curriculum": {"kind": curriculum}})
        )
        with build_rewards(config.rewards, {}) as rewards:
            train(
                build_tiny_model(tokenizer),
                tokenizer,
                _problems("train"),
                policy=policy,
                initial_policy=policy,
                rewards=rewards,
                config=config,
                round_index=1,
                on_step=steps.append,
                serving=Serving(folder, policy, warn=[].append),
            )
    return {key for step in steps for key in step.metrics}


def test_glossary_has_exactly_the_keys_of_a_value_model() -> None:
    targets = ValueTargets((np.array([0.5, 0.5]),), (np.array([1.0, 0.0]),))
    critic = Critic(
        ValueModel(add_head(build_tiny_model(build_tiny_tokenizer())), None),
        PpoMethod(),
        GrpoConfig(),
        torch.device("cpu"),
    )
    assert set(critic.learn([_response(2)], targets)) == _defined("Value model, by step")


def _response(num_tokens: int) -> Completion:
    return Completion(
        problem_key="p", index=0, prompt_ids=[1], token_ids=[5] * num_tokens, text="x", finish_reason="stop",
        logprobs=[-1.0] * num_tokens, policy_id="p", step=1, seed=0,
    )  # fmt: skip


def test_glossary_has_exactly_the_keys_of_a_training_step(policy: Policy, tmp_path: Path) -> None:
    """Once the second step has responses from the cache, once those that were written ahead, and once another method trains, on
    half of the rows."""
    found = _training(policy, tmp_path / "cache", max_staleness=0)
    found |= _training(policy, tmp_path / "ahead", max_staleness=1, refill=0, response_cache={}, curriculum="predicted")
    rows = {"kl_coefficient": 0, "row_sampling": {"share": 0.5}}
    found |= _training(policy, tmp_path / "reinforce", max_staleness=0, method="reinforce", refill=0, **rows)
    assert _generic(found) == _defined("Training, by step")


def test_glossary_has_exactly_the_keys_of_an_evaluation(policy: Policy) -> None:
    """`brief` cannot score the first response of each call."""
    config = Config.model_validate(CONFIG | {"combination": {"max_unscored_share": 0.2}})
    tokenizer = build_tiny_tokenizer()
    with build_rewards(config.rewards, {}) as rewards:
        rewards[1] = FirstUnscored(rewards[1])
        evaluation = evaluate(
            partial(sample, build_tiny_model(tokenizer), tokenizer),
            {"dev": _problems("dev"), "test": _problems("test")},
            policy=policy,
            initial_policy=policy,
            load=lambda policy: load_policy(policy.path, device="cpu")[0],
            rewards=rewards,
            config=config,
            round_index=0,
        )
    assert _generic(set(estimates(evaluation.reports))) == _defined("Evaluation, by round")


def test_glossary_has_exactly_the_keys_of_a_reward_model() -> None:
    report = RewardModelReport(
        id="x",
        path="x",
        accepted=True,
        reasons=[],
        accuracy=Estimate(estimate=0.7, low=0.6, high=0.8, n=60),
        margin=0.5,
        length_correlation=0.0,
        markup_correlation=0.0,
        calibration_error=0.1,
        old_accuracy=Estimate(estimate=0.7, low=0.6, high=0.8, n=60),
        canary_wins=0.0,
        num_train_pairs=1,
        num_held_out_pairs=1,
        num_replayed_pairs=1,
    )
    assert {*METRICS.values(), *report_metrics(report)} == _defined("Reward models, by update")


def test_glossary_has_exactly_the_keys_of_a_training_on_given_samples() -> None:
    found = PairsFound(pairs=[], dead_keys=set(), num_unscored=0)
    kept = {"best_of_n/kept", "best_of_n/dead_groups"}  # tasks/stages/lessons.py
    assert {*PAIR_METRICS.values(), *found.metrics, *kept} == _defined("Training on given samples, by step")


GROUPS = "problems|regenerate|promotion|pairs|best_of_n|demonstrations|time|memory"


@pytest.mark.parametrize("path", sorted((ROOT / "tasks").rglob("*.py")), ids=lambda path: path.name)
def test_keys_that_stages_write_are_defined(path: Path) -> None:
    """A literal dictionary key such as "regenerate/completions" or f"pairs/{name}/train"."""
    defined = re.findall(r"^\| `([^`]+)` \|", GLOSSARY, re.MULTILINE)
    literals = re.findall(rf'f?"((?:{GROUPS})/[^"]*)"(?=:|\])', path.read_text(encoding="utf-8"))
    patterns = {re.sub(r"\{[^}]*\}", "[^/]+", literal) for literal in literals}
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, key) for key in defined)] == []


def test_problem_counts_are_defined() -> None:
    source = (ROOT / "grpo_train" / "problems" / "splits.py").read_text(encoding="utf-8")
    counts = set(re.findall(r'^        "(\w+)": ', source.partition("counts = {")[2].partition("}")[0], re.MULTILINE))
    splits = {"train", "dev", "test", "regenerate_<round>"}
    assert {f"problems/{name}" for name in counts | splits} == _defined("Problems, once")


def test_glossary_has_exactly_the_keys_of_a_judge(tmp_path: Path) -> None:
    (tmp_path / "rubric.md").write_text("kind")
    settings = JudgeRewardConfig.model_validate(
        {
            "name": "kind", "base_url": "http://127.0.0.1:9/v1", "model": "m", "rubric": str(tmp_path / "rubric.md"),
            "cache": str(tmp_path / "cache.sqlite"), "prices": {"input_per_million": 1, "output_per_million": 1},
        }
    )  # fmt: skip
    with closing(JudgeReward(settings)) as judge:
        judge._count([1.0, Unscored("timeout")])
        keys = {re.sub("/kind/", "/<objective>/", key).replace("timeout", "<reason>") for key in judge.take_metrics()}
    assert keys == _defined("Judges")


def test_glossary_has_exactly_the_keys_of_the_gap_to_the_checker() -> None:
    gaps = Gaps(["quality"])
    step, applies = np.array([[0.0, -1.0], [1.0, 1.0]]), np.ones((2, 2), dtype=np.bool_)
    gaps.measure(step, ["correct", "quality"], step[:, 0], applies)
    measured = gaps.measure(step, ["correct", "quality"], step[:, 0], applies)
    keys = {key.replace("quality", "<objective>") for key in measured}
    assert keys == _defined("Reward models against the checker, by step")
