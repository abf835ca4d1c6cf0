"""The samples of a round, written by hand, and the specs of stages that train on samples which are there before."""

from __future__ import annotations

from pathlib import Path

from configs.disk.files import write_jsonl
from configs.records import Completion, Policy, Problem, Score
from tasks.runs.stage_files import COMPLETIONS, SCORES
from tasks.stages.policy import PolicySpec
from tasks.stages.samples import Samples
from tests.tasks.stage_kit import tiny, write_sums

NUM_PROBLEMS, GROUP = 24, 4
REWARDS = (
    "rewards=[{name: brief, kind: length, target: 2, limit: 16, weight: 2}, {name: digits, kind: format, pattern: '[0-9]'}]",
    "reward_models={}",
    "evaluation.checker=digits",
)


def write_samples(root: Path, given: Policy, *, num_dead: int = 0) -> Samples:
    """Groups of four responses of three tokens, and a response of another policy that would be best in each.

    `brief` is 0, 1/4, 2/4, 3/4 in a group; the first `num_dead` groups have equal scores.
    """
    rows = [(p, i) for p in range(NUM_PROBLEMS) for i in range(GROUP + 1)]
    completions = [_completion(p, i, "other" if i == GROUP else given.id) for p, i in rows]
    scores = [_score(0.0 if p < num_dead else i / GROUP) for p, i in rows]
    problems = [
        Problem(key=f"{p}", prompt=f"say {p}", answer=None, source="s", split="regenerate_000")
        for p in range(NUM_PROBLEMS)
    ]
    paths = [root / name for name in ("problems.jsonl", COMPLETIONS, SCORES)]
    for path, records in zip(paths, (problems, completions, scores), strict=True):
        write_jsonl(path, records)
    return Samples(problems=str(paths[0]), completions=str(paths[1]), scores=str(paths[2]))


def _completion(problem: int, index: int, policy_id: str) -> Completion:
    return Completion(
        problem_key=f"{problem}", index=index, prompt_ids=[3, 30 + problem, 60], token_ids=[10 + index, 20 + problem % 7, 4],
        text=f"{index}", finish_reason="stop", logprobs=[-1.0] * 3, policy_id=policy_id, step=0, seed=0,
    )  # fmt: skip


def _score(brief: float) -> Score:
    return Score(parts={"brief": brief, "digits": 1.0}, total=99.0)


def offline_spec(given: Policy, root: Path, method: str = "kind: dpo", *changes: str, num_dead: int = 0) -> PolicySpec:
    """Six updates of four pairs, with checkpoints after 2 and 4."""
    config = tiny(
        *REWARDS,
        f"method={{{method}, learning_rate: 1.0e-3, batch_size: 4}}",
        "grpo_config.schedule=linear",
        "grpo_config.save_steps=2",
        "grpo_config.micro_batch_tokens=24",
        *changes,
    )
    return PolicySpec(
        config=config,
        round=1,
        policy=given,
        initial_policy=given,
        problems=str(write_sums(root)),
        reward_models={},
        samples=write_samples(root, given, num_dead=num_dead),
    )


def best_spec(given: Policy, root: Path, *changes: str) -> PolicySpec:
    """Six updates of four responses, three passes over the best of four to each of eight problems; checkpoints after 2 and 4."""
    config = tiny(
        *REWARDS,
        "method={kind: best_of_n, mode: offline, epochs: 3}",
        "grpo_config.save_steps=2",
        "grpo_config.micro_batch_tokens=64",
        *changes,
    )
    return PolicySpec(
        config=config,
        round=1,
        policy=given,
        initial_policy=given,
        problems=str(write_sums(root)),
        reward_models={},
    )
