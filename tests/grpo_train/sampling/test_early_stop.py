"""Responses that are ended while they are written, and what they are worth to their group."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from configs.reader import load_config
from configs.records import Completion, Policy, Problem
from configs.schema.grpo import EarlyStopConfig, GrpoConfig, LoopStop
from grpo_train.groups import left_out, without
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.sampling.early_stop import EarlyStop, loops
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.step import StepResult
from grpo_train.trainer import train
from grpo_train.updating.advantages import group_advantages
from reward_training.reward import Unscored
from tests.grpo_train.conftest import make_problem
from tests.paths import TINY

PROBLEMS = [make_problem(f"{i} + {i}") for i in range(4)]


@dataclass
class Draft:
    token_ids: list[int]
    problem: int = 0
    index: int = 0
    finish_reason: str = "length"


@dataclass
class Given:
    """A reward of the number of tokens, or of what a test says."""

    name: str = "given"
    weight: float = 1.0
    value: Any = len
    seen: list[str] = field(default_factory=list)

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Any]:
        self.seen += [completion.text for completion in completions]
        return [self.value(completion.text) for completion in completions]


def stopper(tokenizer, length: int = 64, rewards: Sequence[Given] = (), **config: Any) -> EarlyStop:
    return EarlyStop(EarlyStopConfig.model_validate(config), PROBLEMS, tokenizer, length, rewards)


def reasons(early_stop: EarlyStop, *texts: str) -> list[str]:
    tokenizer = early_stop.tokenizer
    drafts = [Draft(tokenizer(text)["input_ids"], index=index) for index, text in enumerate(texts)]
    going = early_stop.look(drafts, list(range(len(drafts))))
    assert going == [i for i, draft in enumerate(drafts) if draft.finish_reason == "length"]
    return [draft.finish_reason for draft in drafts]


# ---- criteria -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token_ids", "expected"),
    [
        ([7, 1, 2, 3, 1, 2, 3, 1, 2, 3], True),  # the block 1 2 3 thrice, 9 tokens
        ([1, 2, 3, 1, 2, 3, 1, 2, 3, 1], True),  # the same, one token further: 2 3 1 thrice
        ([1, 2, 3, 1, 2, 3, 1, 2], False),  # less than three blocks
        ([1, 2, 3, 1, 2, 4, 1, 2, 3], False),
        ([5] * 6, True),
        ([5] * 5, False),  # a block of one, but under min_tokens = 6
        ([1, 2, 3, 4] * 3, False),  # a block over max_period = 3
        ([], False),
    ],
)
def test_a_loop_is_the_last_block_repeated(token_ids, expected):
    assert loops(token_ids, LoopStop(max_period=3, repeats=3, min_tokens=6)) == expected


def test_what_cannot_be_finished_is_what_cannot_hold_the_wanted_text_any_more(tiny_tokenizer):
    # </a> takes 4 tokens and the end 1, so of 20 tokens 16 may stand without it
    look = stopper(tiny_tokenizer, 20, unfinishable={"must_contain": "</a>"})
    assert reasons(look, "x" * 15, "x" * 16) == ["length", "aborted:unfinishable"]
    assert reasons(look, "x" * 10 + "</a>xx", "x" * 15 + "<", "x" * 15 + "/") == [
        "length",
        "length",  # being written
        "aborted:unfinishable",
    ]


def test_what_must_stand_there_may_be_a_special_token(tiny_tokenizer):
    # one token and the end of 8: seen at 7, where 1 is left
    look = stopper(tiny_tokenizer, 8, unfinishable={"must_contain": "<|im_start|>"})
    assert reasons(look, "xxx<|im_start|>xxx", "x" * 7) == ["length", "aborted:unfinishable"]


def test_the_tokens_that_an_ending_needs_can_be_given(tiny_tokenizer):
    look = stopper(tiny_tokenizer, 20, unfinishable={"must_contain": "</a>", "needs": 12})
    assert reasons(look, "x" * 8, "x" * 9) == ["length", "aborted:unfinishable"]


def test_a_low_score_stops_at_checkpoints_alone_and_an_unscored_text_goes_on(tiny_tokenizer):
    worth = {"good": 2.0, "poor": -2.0, "dunno": Unscored("away"), "bad": -9.0}
    reward = Given(value=worth.get)
    look = stopper(tiny_tokenizer, rewards=[reward], low_score={"reward": "given", "every": 4, "below": -1.0})
    assert reasons(look, "good", "poor", "bad") == ["length", "aborted:low_score", "length"]
    assert reward.seen == ["good", "poor"]
    worth["poor"] = Unscored("away")
    assert reasons(look, "poor") == ["length"]


def test_a_reward_that_the_round_does_not_have_stops_nothing(tiny_tokenizer):
    look = stopper(tiny_tokenizer, low_score={"reward": "given", "every": 4, "below": -1.0})
    assert reasons(look, "poor") == ["length"]


def test_what_ends_at_the_length_limit_was_not_aborted(tiny_tokenizer):
    look = stopper(tiny_tokenizer, 8, loop={"min_tokens": 2})
    assert reasons(look, "a" * 7, "a" * 8) == ["aborted:loop", "length"]


def test_low_score_names_a_reward_that_can_score_a_part(tiny_tokenizer):
    override = "grpo_config.early_stop={low_score: {reward: correct, every: 8, below: 0}}"
    with pytest.raises(ValueError, match=r"correct.*reward_model or python are \['taste'\]"):
        load_config(TINY, [override])


@pytest.mark.parametrize(
    ("early_stop", "message"),
    [
        ("{loop: {}}", "loop.min_tokens=32"),  # with 16 tokens a response
        ("{unfinishable: {must_contain: x, needs: 16}}", "unfinishable.needs=16"),
        ("{low_score: {reward: taste, below: 0}}", "low_score.every=128"),
    ],
)
def test_a_criterion_that_cannot_work_within_the_length_is_refused(early_stop, message):
    with pytest.raises(ValueError, match=rf"{message} is not under max_response_length=16.*lower it"):
        load_config(TINY, [f"grpo_config.early_stop={early_stop}"])


# ---- generation -----------------------------------------------------------------------------------------------------


def make_it_loop(model: torch.nn.Module, tokenizer) -> None:
    """The first token is `a` or the end, each in half of the draws; then a b a b ... without end."""
    start, a, b = 2, *tokenizer.convert_tokens_to_ids(["a", "b"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for norm in (module for module in model.modules() if "RMSNorm" in type(module).__name__):
            norm.weight.fill_(1.0)
        model.model.embed_tokens.weight[:, start] = 1.0
        for token, place in ((a, 0), (b, 1)):
            model.model.embed_tokens.weight[token] = 0.0
            model.model.embed_tokens.weight[token, place] = 1.0
        # the last norm makes a unit vector of 64 numbers 8 long
        model.lm_head.weight[b, 0] = model.lm_head.weight[a, 1] = 10.0
        model.lm_head.weight[a, start] = model.lm_head.weight[tokenizer.eos_token_id, start] = 10.0


def test_looping_rows_end_early_and_the_others_write_the_same(tiny):
    model, tokenizer = tiny
    make_it_loop(model, tokenizer)
    sampling = Sampling(group_size=8, temperature=1.0, max_response_length=64)
    early_stop = stopper(tokenizer, loop={"max_period": 2, "repeats": 4, "min_tokens": 8})
    plain = sample(model, tokenizer, PROBLEMS, sampling, seed=0, policy_id="p")
    stopped = sample(model, tokenizer, PROBLEMS, sampling, seed=0, policy_id="p", early_stop=early_stop)
    num_looping = sum(completion.finish_reason == "length" for completion in plain)
    assert 0 < num_looping < 32
    assert [c.finish_reason == "length" for c in plain] == [c.finish_reason == "aborted:loop" for c in stopped]
    # a loop ends after 8 tokens, not after 64; a response that stops is its end of sequence alone
    assert sum(len(c.token_ids) for c in plain) == 64 * num_looping + (32 - num_looping)
    assert sum(len(c.token_ids) for c in stopped) == 8 * num_looping + (32 - num_looping)
    for before, after in zip(plain, stopped, strict=True):
        assert after.token_ids == before.token_ids[: len(after.token_ids)]
        assert len(after.logprobs) == len(after.token_ids)


def test_the_configuration_turns_it_on_in_training(tiny, tmp_path):
    model, tokenizer = tiny
    make_it_loop(model, tokenizer)
    policy = save_policy(model, tokenizer, tmp_path / "policy", round_index=0)
    steps: list[StepResult] = []
    train(
        model,
        tokenizer,
        PROBLEMS,
        policy=policy,
        initial_policy=policy,
        rewards=[Given()],
        config=load_config(TINY, ["grpo_config.precision=float32", "grpo_config.early_stop={loop: {min_tokens: 8}}"]),
        round_index=1,
        on_step=steps.append,
    )
    # half of the rows write a b a b ..., which 8 tokens show; of the others each is its end of sequence alone
    assert 0 < steps[0].metrics["response/aborted_share"] < 1
    assert steps[0].metrics["response/length_max"] == 8
    assert {row["finish_reason"] for row in steps[0].rollouts} == {"stop", "aborted:loop"}


# ---- the group ------------------------------------------------------------------------------------------------------


def written(problem: Problem, index: int, text: str, tokenizer, finish_reason: str = "stop") -> Completion:
    token_ids = tokenizer(text)["input_ids"]
    return Completion(
        problem_key=problem.key,
        index=index,
        prompt_ids=tokenizer("2 + 2 =")["input_ids"],
        token_ids=token_ids,
        text=text,
        finish_reason=finish_reason,
        logprobs=[-1.0] * len(token_ids),
        policy_id="p",
        step=1,
        seed=0,
    )


def one_update(
    policy: Policy, completions: list[Completion], monkeypatch: pytest.MonkeyPatch, *overrides: str
) -> tuple[torch.Tensor, StepResult]:
    """The weights after an update on `completions`, whose reward is their number of characters."""
    monkeypatch.setattr("grpo_train.rollouts.sample", lambda *args, **kwargs: completions)
    model, tokenizer = load_policy(policy.path, device="cpu")
    size = [f"grpo_config.group_size={len(completions)}", f"grpo_config.batch_size={len(completions)}"]
    fixed = ["grpo_config.precision=float32", "grpo_config.max_updates=1", "grpo_config.max_grad_norm=100"]
    steps: list[StepResult] = []
    train(
        model,
        tokenizer,
        PROBLEMS[:1],
        policy=policy,
        initial_policy=policy,
        rewards=[Given()],
        config=load_config(TINY, [*fixed, *size, *overrides]),
        round_index=1,
        on_step=steps.append,
    )
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), steps[0]


@pytest.fixture
def group(tiny_tokenizer) -> list[Completion]:
    reasons = {"12": "stop", "345": "stop", "67": "aborted:loop", "89012": "length"}
    return [written(PROBLEMS[0], i, text, tiny_tokenizer, reason) for i, (text, reason) in enumerate(reasons.items())]


@pytest.mark.parametrize("more", [[], ["grpo_config.kl_coefficient=0.1"]])
def test_a_row_that_is_left_out_leaves_the_gradient_of_a_group_without_it(tiny, tmp_path, group, monkeypatch, more):
    policy = save_policy(*tiny, tmp_path / "policy", round_index=0)
    leave_out = "grpo_config.early_stop={loop: {min_tokens: 8}, aborted: leave_out}"
    smaller = [completion for completion in group if completion.finish_reason != "aborted:loop"]
    weights, step = one_update(policy, group, monkeypatch, leave_out, *more)
    expected, other = one_update(policy, smaller, monkeypatch, *more)
    assert step.metrics["policy/grad_norm"] == pytest.approx(other.metrics["policy/grad_norm"], rel=1e-6)
    assert step.metrics["policy/loss"] == pytest.approx(other.metrics["policy/loss"], rel=1e-5, abs=1e-7)
    assert torch.allclose(weights, expected, atol=1e-7)
    assert step.metrics["response/aborted_share"] == 0.25
    assert [row["advantage"] == 0.0 for row in step.rollouts] == [False, False, True, False]


def test_a_row_that_is_scored_shapes_its_group_by_its_score(tiny, tmp_path, group, monkeypatch):
    policy = save_policy(*tiny, tmp_path / "policy", round_index=0)
    _, step = one_update(policy, group, monkeypatch, "grpo_config.early_stop={loop: {min_tokens: 8}, aborted: score}")
    # rewards 2, 3, 2, 5: mean 3, std with Bessel's correction sqrt(6 / 3)
    expected = np.array([-1, 0, -1, 2]) / (2**0.5 + 1e-4)
    assert [row["advantage"] for row in step.rollouts] == pytest.approx(expected.tolist())


def test_a_group_that_is_left_out_altogether_changes_nothing(tiny, tmp_path, group, monkeypatch):
    policy = save_policy(*tiny, tmp_path / "policy", round_index=0)
    aborted = [completion.model_copy(update={"finish_reason": "aborted:loop"}) for completion in group]
    leave_out = "grpo_config.early_stop={loop: {min_tokens: 8}, aborted: leave_out}"
    _, step = one_update(policy, aborted, monkeypatch, leave_out, "grpo_config.kl_coefficient=0.1")
    assert step.metrics["policy/grad_norm"] == 0.0
    assert step.metrics["groups/dead_share"] == 1.0


def test_left_out_rows_take_no_part_in_mean_and_std(group):
    out = left_out(group, GrpoConfig(early_stop=EarlyStopConfig(aborted="leave_out")))
    advantages = group_advantages(without(np.array([[2.0], [3.0], [2.0], [5.0]]), out), np.ones(1), 4)
    alone = group_advantages(np.array([[2.0], [3.0], [5.0]]), np.ones(1), 3)
    assert advantages.values[[0, 1, 3]] == pytest.approx(alone.values)
    assert advantages.values[2] == 0.0
    assert not left_out(group, GrpoConfig(early_stop=EarlyStopConfig(aborted="score"))).any()
