"""What the doctor learns from sampling some problems."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.reader import load_config
from configs.schema.config import Config
from flows.cli import main
from flows.doctor.preflight import Preflight, RewardRange, preflight, preflight_checks
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
    return Preflight(4, list(pass_rates), dead_share, truncated_share, 12, [reward], [])


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
    assert (seen.num_responses, len(seen.pass_rates), seen.left_out) == (128, 32, ["taste"])
    assert [reward.name for reward in seen.rewards] == ["correct", "digits", "brief"]
    assert seen.rewards[0].mean == pytest.approx(sum(seen.pass_rates) / 32)
    assert seen.rewards[0].agreement in (None, pytest.approx(1.0))
    assert 0 <= seen.dead_share < 0.5  # lengths differ


def test_a_run_that_cannot_learn_is_refused_by_name(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewards = "[{name: correct, kind: outcome, extract: tag, tag: nothing, weight: 1}]"
    code = main(["doctor", str(TINY), "--set", f"rewards={rewards}", "--set", "reward_models={}"])
    printed = capsys.readouterr()
    assert code == 2
    assert "100% of 28 groups have equal rewards: nothing can be learned" in printed.out + printed.err
    assert "none right" in printed.out
