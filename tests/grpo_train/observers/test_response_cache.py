"""Good responses that are used again: what is kept, what is dropped, and what they do to the update."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from configs.reader import load_config
from configs.records import Completion, Policy, Problem, Score
from configs.schema.grpo import GrpoConfig, ResponseCacheConfig
from grpo_train.observers.response_cache import ResponseCache, effective_share, near_enough
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.sampling.generation import sample
from grpo_train.step import StepResult
from grpo_train.trainer import train
from grpo_train.updating.advantages import group_advantages
from grpo_train.updating.learner import Learner
from tests.grpo_train.conftest import make_problem
from tests.paths import TINY

PROBLEMS = [make_problem(f"{i} + {i}") for i in range(4)]


def written(problem: Problem, step: int, index: int = 0, logprobs: Sequence[float] = (-0.1, -0.7)) -> Completion:
    return Completion(
        problem_key=problem.key,
        index=index,
        prompt_ids=[1, 2],
        token_ids=[7 + i for i in range(len(logprobs))],
        text=f"step {step}, index {index}",
        finish_reason="stop",
        logprobs=list(logprobs),
        policy_id=f"p+{step - 1}",
        step=step,
        seed=0,
    )


def cache_of(share: float = 0.5, group_size: int = 4, **settings: Any) -> ResponseCache:
    return ResponseCache(ResponseCacheConfig(share=share, **settings), group_size)


def put(cache: ResponseCache, *completions: Completion) -> dict[str, float]:
    number = len(completions)
    scores = [Score(parts={"right": 1.0}, total=1.0)] * number
    return cache.add(completions, scores, np.ones(number), [None] * number, np.zeros(number, dtype=np.bool_))


def unmoved(completions: Sequence[Completion]) -> np.ndarray:
    """Log ratios where the policy is still the one that wrote."""
    return np.zeros(len(completions))


def steps_kept(cache: ResponseCache) -> list[int]:
    return [kept.completion.step for kept in cache.kept]


# ---- what is kept ---------------------------------------------------------------------------------------------------


def test_kept_is_what_is_right_and_better_than_its_group_and_new():
    cache = cache_of()
    rows = [written(PROBLEMS[0], 1, index) for index in range(4)]
    scores = [Score(parts={"right": float(i)}, total=float(i)) for i in range(4)]
    cache.add(rows, scores, np.array([1.0, 1.0, -1.0, 1.0]), [True, False, True, True], np.array([False] * 3 + [True]))
    assert [(kept.completion, kept.score) for kept in cache.kept] == [(rows[0], scores[0])]


def test_without_a_checker_among_the_rewards_a_positive_advantage_is_good():
    cache = cache_of()
    rows = [written(PROBLEMS[0], 1, index) for index in range(3)]
    scores = [Score(parts={}, total=0.0)] * 3
    cache.add(rows, scores, np.array([0.5, 0.0, -0.5]), [None] * 3, np.zeros(3, dtype=np.bool_))
    assert [kept.completion for kept in cache.kept] == rows[:1]


def test_newer_responses_take_the_room_of_older_ones():
    cache = cache_of(size=3)  # half of a group of 4 is two of a problem
    put(cache, written(PROBLEMS[0], 1), written(PROBLEMS[1], 1))
    assert put(cache, written(PROBLEMS[0], 2)) == {"cache/size": 3.0, "cache/dropped": 0.0}
    assert put(cache, written(PROBLEMS[0], 3)) == {"cache/size": 3.0, "cache/dropped": 1.0}
    assert steps_kept(cache) == [1, 2, 3]
    assert put(cache, written(PROBLEMS[2], 4))["cache/dropped"] == 2.0
    assert [(k.completion.problem_key, k.completion.step) for k in cache.kept] == [
        (PROBLEMS[0].key, 2),
        (PROBLEMS[0].key, 3),
        (PROBLEMS[2].key, 4),
    ]


def test_state_and_restore_keep_every_digit():
    cache, other = cache_of(), cache_of()
    put(cache, written(PROBLEMS[0], 1, logprobs=[-0.1, -1 / 3, -1e-17]), written(PROBLEMS[1], 2))
    other.restore(json.loads(json.dumps(cache.state())))
    assert other.kept == cache.kept
    assert other.kept[0].completion.logprobs == [-0.1, -1 / 3, -1e-17]


def test_a_cache_that_is_off_does_nothing():
    cache = cache_of(share=0.0)
    assert put(cache, written(PROBLEMS[0], 1)) == {}
    reuse = cache.take(2, PROBLEMS, unmoved)
    assert (reuse.num_sampled, cache.taken, cache.kept) == ([4, 4, 4, 4], {}, [])


def test_a_share_of_less_than_one_response_is_refused():
    with pytest.raises(ValueError, match=r"share=0.2 of group_size=4 .* at least 0.25"):
        GrpoConfig.model_validate({"group_size": 4, "batch_size": 8, "response_cache": {"share": 0.2}})


# ---- what is used and what is dropped -------------------------------------------------------------------------------


def test_a_group_has_its_kept_rows_last_and_keeps_its_size():
    cache = cache_of()
    kept = [written(PROBLEMS[1], step, index=3) for step in (1, 2)]
    put(cache, *kept)
    reuse = cache.take(3, PROBLEMS[:2], unmoved)
    assert reuse.num_sampled == [4, 2]
    sampled = [written(PROBLEMS[0], 3, i) for i in range(4)] + [written(PROBLEMS[1], 3, i) for i in range(2)]
    whole = reuse.completions(sampled)
    assert whole[:6] == sampled
    assert [(row.step, row.index, row.logprobs) for row in whole[6:]] == [(2, 2, [-0.1, -0.7]), (1, 3, [-0.1, -0.7])]
    assert reuse.is_old.tolist() == [False] * 6 + [True] * 2
    scores = [Score(parts={"right": 0.0}, total=0.0)] * 6
    assert [row.total for row in reuse.scores(scores)] == [0.0] * 6 + [1.0] * 2
    # 2 of 8 rows, 1 and 2 steps old
    assert cache.taken == {"cache/effective_share": 1.0, "cache/used_share": 0.25, "cache/age_mean": 1.5}


def test_what_is_too_old_is_dropped():
    cache = cache_of(max_age=2)
    put(cache, written(PROBLEMS[0], 1), written(PROBLEMS[0], 2))
    assert cache.take(3, PROBLEMS, unmoved).num_sampled == [2, 4, 4, 4]
    assert cache.take(4, PROBLEMS, unmoved).num_sampled == [3, 4, 4, 4]
    assert (steps_kept(cache), cache.num_dropped) == ([2], 1)


def test_effective_share_is_that_of_the_weights():
    assert effective_share(np.log([1.0, 1.0, 4.0])) == pytest.approx(36 / (3 * 18))
    assert effective_share(np.array([-900.0, -900.0])) == pytest.approx(1.0)  # however small the weights are
    assert effective_share(np.array([0.0, -900.0])) == pytest.approx(1 / 2)


def test_those_farthest_off_the_policy_leave_until_the_rest_is_worth_enough():
    logs = np.log([1.0, 4.0, 1.2, 1e-3])
    assert near_enough(logs, 0.4).tolist() == [True, True, True, True]
    # all 4: 6.201^2 / (4 * 18.44) = 0.52; without 1e-3: 6.2^2 / (3 * 18.44) = 0.69; without 4 too: 2.2^2 / (2 * 2.44) = 0.99
    assert near_enough(logs, 0.6).tolist() == [True, True, True, False]
    assert near_enough(logs, 0.7).tolist() == [True, False, True, False]


def test_what_is_too_far_off_the_policy_is_dropped():
    cache = cache_of(min_effective_share=0.6)
    put(cache, written(PROBLEMS[0], 1), written(PROBLEMS[1], 1, index=1))
    ratios = {0: 0.0, 1: 5.0}
    reuse = cache.take(2, PROBLEMS, lambda completions: np.array([ratios[c.index] for c in completions]))
    assert reuse.num_sampled == [3, 4, 4, 4]
    assert cache.taken["cache/effective_share"] == pytest.approx((1 + np.exp(-5)) ** 2 / (2 * (1 + np.exp(-10))))
    assert (len(cache.kept), cache.num_dropped) == (1, 1)


# ---- the update -----------------------------------------------------------------------------------------------------


def float64_logprobs(model: torch.nn.Module, completion: Completion) -> torch.Tensor:
    """(T,) of the response, by a plain forward pass in double precision."""
    ids = torch.tensor([[*completion.prompt_ids, *completion.token_ids]])
    logits = model(ids).logits[0, len(completion.prompt_ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]


def test_a_kept_row_is_weighted_by_its_clipped_ratio_and_the_others_by_one(tiny, monkeypatch):
    model, _ = tiny
    double = load_double(model)
    with torch.no_grad():
        now = float64_logprobs(double, written(PROBLEMS[0], 1, logprobs=[0.0] * 3))
    # ratios exp(0.1) inside, exp(0.5) clipped, exp(-0.5) below 1 but not clipped for a positive advantage
    old = written(PROBLEMS[0], 1, index=2, logprobs=(now - torch.tensor([0.1, 0.5, -0.5])).tolist())
    fresh = [written(PROBLEMS[0], 5, index, logprobs=[-9.0] * (2 + index)) for index in range(2)]
    completions, is_old = [*fresh, old], np.array([False, False, True])
    advantages = group_advantages(np.array([[0.0], [0.2], [1.0]]), np.ones(1), 3)

    grpo = GrpoConfig(group_size=3, batch_size=3, temperature=1.0, precision="float32", micro_batch_tokens=12)
    policy = Policy(path="", id="p", round=0)
    learner = Learner(model, grpo, policy=policy, initial_policy=policy, num_updates=1)
    assert learner.log_ratios([old])[0] == pytest.approx(0.1, abs=1e-5)
    gradients: list[torch.Tensor] = []

    def keep_gradients() -> float:
        gradients.extend(parameter.grad.clone() for parameter in model.parameters())
        return 0.0

    monkeypatch.setattr(learner, "_apply", keep_gradients)
    metrics = learner.update(completions, advantages, is_old)

    losses = []
    for completion, advantage, is_kept in zip(completions, advantages.values, is_old, strict=True):
        logprobs = float64_logprobs(double, completion)
        writer = torch.tensor(completion.logprobs, dtype=torch.float64) if is_kept else logprobs.detach()
        ratio = torch.exp(logprobs - writer)
        losses.append(-torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean())
    expected = sum(losses) / 3
    expected.backward()
    assert metrics["policy/loss"] == pytest.approx(expected.item(), abs=1e-6)
    for gradient, parameter in zip(gradients, double.parameters(), strict=True):
        assert torch.allclose(gradient.double(), parameter.grad, atol=1e-6)
    # one token of 2 + 3 + 3
    assert metrics["policy/clip_fraction"] == pytest.approx(1 / 8)
    # the sampler's difference is of fresh rows alone, whose log-probs are far off here
    assert metrics["policy/sampler_mismatch"] > 3.0


def load_double(model: torch.nn.Module) -> torch.nn.Module:
    twin = type(model)(model.config).double().eval()
    twin.load_state_dict(model.state_dict())
    return twin


# ---- a run ----------------------------------------------------------------------------------------------------------


class LuckyOnce:
    """1 for the first response of each group of step 1, 0 for all that comes later."""

    name, weight = "given", 1.0

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[float]:
        return [float(c.step == 1 and c.index == 0) for c in completions]


def run(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, *overrides: str
) -> tuple[list[StepResult], list[list[Completion]]]:
    """Three steps over the same four problems: results, and what was sampled."""
    sampled: list[list[Completion]] = []

    def spy(*args: Any, **kwargs: Any) -> list[Completion]:
        sampled.append(sample(*args, **kwargs))
        return sampled[-1]

    monkeypatch.setattr("grpo_train.rollouts.sample", spy)
    model, tokenizer = load_policy(policy.path, device="cpu")
    fixed = ["grpo_config.precision=float32", "grpo_config.max_updates=3", "grpo_config.epochs=3"]
    steps: list[StepResult] = []
    train(
        model,
        tokenizer,
        PROBLEMS,
        policy=policy,
        initial_policy=policy,
        rewards=[LuckyOnce()],
        config=load_config(TINY, [*fixed, *overrides]),
        round_index=1,
        on_step=steps.append,
    )
    return steps, sampled


def test_a_run_with_the_cache_samples_less_and_has_no_dead_groups(tiny, tmp_path, monkeypatch):
    policy = save_policy(*tiny, tmp_path / "policy", round_index=0)
    steps, sampled = run(policy, monkeypatch, "grpo_config.response_cache={share: 0.25, min_effective_share: 0}")
    plain, all_sampled = run(policy, monkeypatch)
    assert [len(rows) for rows in all_sampled] == [16, 16, 16]
    assert [len(rows) for rows in sampled] == [16, 12, 12]
    num_tokens = [sum(len(c.token_ids) for rows in runs for c in rows) for runs in (sampled, all_sampled)]
    assert num_tokens[0] < num_tokens[1]
    # nothing after the first step is right, and only kept responses say so
    assert [step.metrics["groups/dead_share"] for step in plain] == [0.0, 1.0, 1.0]
    assert [step.metrics["groups/dead_share"] for step in steps] == [0.0, 0.0, 0.0]
    assert [step.metrics["policy/grad_norm"] > 0 for step in steps] == [True, True, True]
    assert [step.metrics["cache/used_share"] for step in steps] == [0.0, 0.25, 0.25]
    assert [step.metrics.get("cache/age_mean") for step in steps] == [None, 1.0, 2.0]
    assert [step.metrics["cache/size"] for step in steps] == [4.0, 4.0, 4.0]
    # what the policy gets is told of what it wrote now
    assert steps[1].metrics["objective/given/mean"] == 0.0
    assert [row["written_at"] for row in steps[1].rollouts[:4]] == [2, 2, 2, 1]
    assert [row["index"] for row in steps[1].rollouts[:4]] == [0, 1, 2, 3]
