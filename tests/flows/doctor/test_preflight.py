"""What the doctor learns from sampling some problems."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from configs.reader import load_config
from configs.schema.config import Config
from configs.schema.methods.offline import IpoMethod
from flows.cli import main
from flows.doctor.preflight import Preflight, RewardRange, _not_here, preflight, preflight_checks
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from tests.grpo_train.conftest import make_problem
from tests.paths import TINY

FINE = RewardRange("correct", 0.0, 0.2, 1.0, 0.0, 1.0)


@pytest.fixture
def config() -> Config:
    return load_config(TINY)


def found(
    pass_rates: tuple[float, ...] = (0.0, 0.5, 1.0),
    dead_share: float = 0.3,
    truncated_share: float = 0.1,
    reward: RewardRange = FINE,
) -> Preflight:
    return Preflight(4, list(pass_rates), dead_share, truncated_share, 12, [reward], {})


def statuses(preflight: Preflight, config: Config) -> dict[str, str]:
    return {check.name: check.status for check in preflight_checks(preflight, config)}


def test_what_is_fine_is_said_to_be(config: Config) -> None:
    assert set(statuses(found(), config).values()) == {"ok"}


@pytest.mark.parametrize(
    ("seen", "name", "status"),
    [
        (found(dead_share=1.0), "dead groups", "fail"),
        (found(dead_share=0.8), "dead groups", "warn"),
        (found(pass_rates=(0.0, 0.0)), "pass rates", "warn"),
        (found(pass_rates=(1.0, 1.0)), "pass rates", "warn"),
        (found(truncated_share=0.5), "truncated", "warn"),
        (found(reward=RewardRange("correct", 0.5, 0.5, 0.5, 0.0, None)), "range of correct", "warn"),
        (found(reward=RewardRange("correct", 0.0, 0.5, 1.0, 0.3, None)), "range of correct", "fail"),
        (found(reward=RewardRange("correct", None, None, None, 1.0, None)), "range of correct", "fail"),
    ],
)
def test_what_training_would_meet_is_warned_of_or_refused(
    seen: Preflight, name: str, status: str, config: Config
) -> None:
    checks = statuses(seen, config)
    assert checks.pop(name) == status
    assert set(checks.values()) == {"ok"}


@pytest.mark.parametrize(
    ("kind", "said", "remedy"),
    [
        ("grpo", "80% of 3 groups have equal rewards", "grpo_config.refill"),
        ("reinforce", "80% of 3 groups have no response whose reward differs from the baseline", "harder problems"),
        ("ppo", "80% of 3 groups have no token with an advantage", "harder problems"),
        ("best_of_n", "80% of 3 groups have no response to imitate", "lower method.min_score"),
    ],
)
def test_a_dead_group_is_what_teaches_the_method_nothing(kind: str, said: str, remedy: str) -> None:
    """`refill`, which some methods refuse, was advised to all, and equal rewards were said of groups under `min_score`."""
    first, *_ = preflight_checks(found(dead_share=0.8), load_config(TINY, [f"method.kind={kind}"]))
    assert (first.name, first.status, first.detail) == ("dead groups", "warn", said)
    assert remedy in first.remedy


def test_rewards_that_are_not_here_may_still_tell_responses_apart(config: Config) -> None:
    """A run whose only reward is a reward model was refused: without it all rewards are equal."""
    first, *_ = preflight_checks(replace(found(dead_share=1.0), left_out={"taste": "trained in round 1"}), config)
    assert first.status == "warn"
    assert first.detail == "100% of 3 groups have equal rewards, without taste: they alone would be learned from"


def test_expected_share_of_groups_without_a_difference() -> None:
    # a half: 2 / 4 of the groups of 2 and 2 / 16 of those of 4; 0 and 1: all of them
    assert found().expected_dead(2) == pytest.approx((1 + 0.5 + 1) / 3)
    assert found().expected_dead(4) == pytest.approx((1 + 0.125 + 1) / 3)


def test_a_policy_is_sampled_and_scored_as_in_training(config: Config) -> None:
    tokenizer = build_tiny_tokenizer()
    model = build_tiny_model(tokenizer).eval()
    problems = [make_problem(f"{i} + {i} =", str(2 * i)) for i in range(40)]
    changes = {
        "rewards": [r.model_copy(update={"checker": "exact"}) if r.name == "correct" else r for r in config.rewards]
    }
    seen = preflight(config.model_copy(update=changes), model, tokenizer, problems)
    assert (seen.num_responses, len(seen.pass_rates), seen.left_out) == (128, 32, {"taste": "trained in round 1"})
    assert [reward.name for reward in seen.rewards] == ["correct", "digits", "brief"]
    assert seen.rewards[0].mean == pytest.approx(sum(seen.pass_rates) / 32)
    assert seen.rewards[0].agreement in (None, pytest.approx(1.0))
    assert 0 <= seen.dead_share < 0.5  # lengths differ


# ---- pairs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_pairs", "status", "said"),
    [
        (2, "ok", "67% of 3 problems make a pair: about 27 pairs of a round's 40 problems"),
        (
            1,
            "warn",
            "33% of 3 problems make a pair: about 13 pairs of a round's 40 problems, under min_pairs=16: nothing would",
        ),
        (0, "fail", "0% of 3 problems make a pair: nothing can be learned"),
    ],
)
def test_a_method_on_pairs_is_told_how_many_a_round_makes(num_pairs: int, status: str, said: str) -> None:
    config = load_config(TINY, ["method.kind=dpo"])
    first, *_ = preflight_checks(replace(found(dead_share=1 - num_pairs / 3), num_pairs=num_pairs), config)
    assert (first.name, first.status) == ("pairs", status)
    assert first.detail.startswith(said)


def test_for_a_method_on_pairs_responses_are_drawn_as_at_the_end_of_a_round(config: Config) -> None:
    """Groups of `regeneration.group_size`, of which a pair is the best and the worst; they were those of the loop that samples."""
    tokenizer = build_tiny_tokenizer()
    model = build_tiny_model(tokenizer).eval()
    problems = [make_problem(f"{i} + {i} =", str(2 * i)) for i in range(40)]
    changes = {
        "rewards": [r for r in config.rewards if r.name in ("digits", "taste")],
        "method": IpoMethod(),
        "regeneration": config.regeneration.model_copy(update={"group_size": 8}),
    }
    seen = preflight(config.model_copy(update=changes), model, tokenizer, problems)
    assert (seen.group_size, seen.num_responses, seen.num_problems) == (8, 128, 16)
    assert seen.num_pairs == round((1 - seen.dead_share) * 16)  # one of each problem
    none = {"method": IpoMethod(min_margin=100.0)}
    seen = preflight(config.model_copy(update=changes | none), model, tokenizer, problems)
    assert (seen.num_pairs, seen.dead_share) == (0, 1.0)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"kind": "frozen", "path": "somewhere"}, "frozen: not asked here"),
        (
            {"kind": "served", "path": "somewhere", "url": "http://127.0.0.1:9", "model": "taste"},
            "on a server: not asked here",
        ),
        (None, "trained in round 1"),
    ],
)
def test_a_reward_that_is_not_scored_is_told_with_its_reason(model: dict[str, str] | None, said: str) -> None:
    """`trained in round 1` was said of all of them."""
    steps = "{name: steps, kind: process, checked_by: taste, weight: 0}"
    overrides = ["rewards=[{name: taste, kind: reward_model, model: taste}, " + steps + "]", "evaluation.checker=taste"]
    config = load_config(TINY, [*overrides, *([f"reward_models.taste={model}"] if model else [])])
    assert [_not_here(reward, config) for reward in config.rewards] == [said, "its steps are checked by taste"]


def test_a_run_that_cannot_learn_is_refused_by_name(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewards = "[{name: correct, kind: outcome, extract: tag, tag: nothing, weight: 1}]"
    code = main(["doctor", str(TINY), "--set", f"rewards={rewards}", "--set", "reward_models={}"])
    printed = capsys.readouterr()
    assert code == 2
    assert "100% of 28 groups have equal rewards: nothing can be learned" in printed.out + printed.err
    assert "none right" in printed.out
