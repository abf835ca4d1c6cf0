"""PPO's advantages against numbers worked by hand, and tasks whose optimum is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import StageStopped
from configs.records import Completion, Policy, Problem
from configs.schema.config import Config
from configs.schema.methods.method import PpoMethod
from grpo_train.methods.ppo import Ppo, token_advantages, whitened
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.step import Stepper, StepResult
from grpo_train.trainer import train
from grpo_train.updating.advantages import Advantages, Scored
from grpo_train.updating.critic import ValueModel, ValueSamples
from reward_training.reward_models.backbone import load_backbone
from reward_training.reward_models.scores import Calibration
from tests.grpo_train.conftest import make_problem
from tests.grpo_train.test_resume import attempt, same, stopped, without
from tests.grpo_train.test_trainer import PROBLEMS, Given, tiny_config

NAN = float("nan")
NO_FLOOR = np.full((1, 2), np.nan)


class Told:
    """A critic whose values a test writes down."""

    def __init__(self, *rows: list[float]) -> None:
        self.rows = rows

    def values(self, completions: list[Completion]) -> list[np.ndarray]:
        return [np.array(row) for row in self.rows]


def response(num_tokens: int) -> Completion:
    return Completion(
        problem_key="p", index=0, prompt_ids=[1], token_ids=[5] * num_tokens, text="x", finish_reason="stop",
        logprobs=[-1.0] * num_tokens, policy_id="p", step=1, seed=0,
    )  # fmt: skip


def advantages_of(rewards: list[float], critic: Told, **settings: object) -> Advantages:
    completions = [response(len(row)) for row in critic.rows]
    parts = np.array(rewards)[:, None]
    scored = Scored(parts, np.array([1.0]), NO_FLOOR, 2, np.zeros(len(rewards) // 2, np.int64), completions)
    return Ppo(PpoMethod.model_validate(settings), critic).advantages(scored)  # type: ignore[arg-type]


# ---- advantages -----------------------------------------------------------------------------------------------------


def test_generalised_advantages_are_those_worked_by_hand() -> None:
    # delta_2 = 1 - (-0.5) = 1.5;  delta_1 = 0.9 (-0.5) - 0.25 = -0.7;  delta_0 = 0.9 (0.25) - 0.5 = -0.275
    # A_2 = 1.5;  A_1 = -0.7 + 0.9 (0.8) 1.5 = 0.38;  A_0 = -0.275 + 0.72 (0.38) = -0.0014
    found = token_advantages(1.0, np.array([0.5, 0.25, -0.5]), gamma=0.9, gae_lambda=0.8)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [-0.0014, 0.38, 1.5], rtol=0, atol=1e-15)


def test_generalised_advantages_are_the_sum_of_the_paper() -> None:
    """Equation 16 as it stands: each advantage is a sum over all later errors of prediction."""
    rng = np.random.default_rng(0)
    values, gamma, gae_lambda, reward = rng.normal(size=7), 0.97, 0.6, -2.0
    after = [*values[1:], 0.0]
    deltas = [reward * (t == 6) + gamma * after[t] - values[t] for t in range(7)]
    sums = [sum((gamma * gae_lambda) ** later * deltas[t + later] for later in range(7 - t)) for t in range(7)]
    np.testing.assert_allclose(token_advantages(reward, values, gamma, gae_lambda), sums, rtol=1e-13)


def test_without_discount_and_with_lambda_1_the_advantage_is_return_minus_value() -> None:
    values = np.array([0.3, -1.2, 4.0, 0.0])
    np.testing.assert_allclose(token_advantages(2.5, values, 1.0, 1.0), 2.5 - values, rtol=1e-14)


def test_with_lambda_0_the_advantage_is_one_error_of_prediction() -> None:
    # V = 1, 2, 4 and a reward of 3 at the end: 2 - 1, 4 - 2, 3 - 4
    assert token_advantages(3.0, np.array([1.0, 2.0, 4.0]), 1.0, 0.0).tolist() == [1.0, 2.0, -1.0]


def test_advantages_and_targets_of_a_step() -> None:
    found = advantages_of([1.0, 0.0], Told([0.5, 0.25], [0.5]), whiten=False)
    assert found.values.tolist() == [0.0, 0.0]
    assert found.by_token is not None
    assert [row.tolist() for row in found.by_token] == [[0.5, 0.75], [-0.5]]
    assert found.means.tolist() == [0.625, -0.5]
    assert found.targets is not None
    # A + V is the reward at every token
    assert [row.tolist() for row in found.targets.returns] == [[1.0, 1.0], [0.0]]
    kept = found.kept(np.array([False, True]))
    assert kept.targets is not None
    assert [row.tolist() for row in kept.targets.values] == [[0.5]]


def test_advantages_are_whitened_over_the_tokens_of_the_step() -> None:
    # raw 1, 1, 1 and -3: mean 0, variance 12 / 4 = 3
    found = advantages_of([1.0, -3.0], Told([0.0, 0.0, 0.0], [0.0]))
    assert found.by_token is not None
    expected = [1 / np.sqrt(3), 1 / np.sqrt(3), 1 / np.sqrt(3), -3 / np.sqrt(3)]
    assert np.concatenate(found.by_token) == pytest.approx(expected)


def test_equal_advantages_whiten_to_exactly_0_and_their_groups_are_dead() -> None:
    found = advantages_of([0.1, 0.1], Told([0.3, 0.3], [0.3]))
    assert not found.moves.any()
    assert found.dead.tolist() == [True]


def test_a_group_of_equal_rewards_teaches_where_the_values_were_wrong() -> None:
    found = advantages_of([1.0, 1.0, 0.0, 0.0], Told([0.2], [0.2], [0.1], [0.1]), whiten=False)
    assert found.dead.tolist() == [False, False]
    assert found.means.tolist() == pytest.approx([0.8, 0.8, -0.1, -0.1])


def test_a_response_without_any_score_moves_nothing_and_is_in_no_mean() -> None:
    found = advantages_of([1.0, NAN], Told([0.0, 0.5], [7.0]), whiten=True)
    # 1 and 0.5: mean 0.75, standard deviation 0.25
    assert found.by_token is not None
    assert np.concatenate(found.by_token) == pytest.approx([1.0, -1.0, 0.0], abs=1e-6)
    assert found.targets is not None
    assert np.isnan(found.targets.returns[1]).all()
    assert found.contributions.tolist() == [[0.0], [0.0]]


def test_a_step_without_groups_has_no_advantages() -> None:
    assert advantages_of([], Told()).dead.tolist() == []
    assert whitened([]) == []


# ---- tasks with a known optimum -------------------------------------------------------------------------------------


def value_model(policy: Policy, samples: ValueSamples = ValueSamples()) -> ValueModel:  # noqa: B008 - it is frozen
    """A value model with a head of zeros, as a round makes it of the policy."""
    model = load_backbone(Path(policy.path), seed=0)
    torch.nn.init.zeros_(model.get_submodule("score").weight)  # type: ignore[arg-type]
    return ValueModel(model, None, samples)


@pytest.fixture
def policy(tiny: tuple, tmp_path: Path) -> Policy:
    return save_policy(*tiny, tmp_path / "policy", round_index=0)


def ppo_config(*overrides: str, **settings: object) -> Config:
    method = {"kind": "ppo", "value_learning_rate": 3e-3, "value_warmup_updates": 0} | settings
    given = ", ".join(f"{name}: {value}" for name, value in method.items())
    return tiny_config(f"method={{{given}}}", "grpo_config.epochs=100", *overrides)


def trained(
    policy: Policy,
    config: Config,
    reward: Given,
    start: ValueModel | None = None,
    problems: Sequence[Problem] = PROBLEMS,
) -> list[StepResult]:
    model, tokenizer = load_policy(policy.path, device="cpu")
    steps: list[StepResult] = []
    train(
        model, tokenizer, problems, policy=policy, initial_policy=policy, rewards=[reward], config=config, round_index=1,
        on_step=steps.append, value_model=start or value_model(policy),
    )  # fmt: skip
    return steps


@pytest.mark.parametrize(("gae_lambda", "whiten"), [(1.0, "true"), (0.95, "true"), (1.0, "false")])
def test_a_bandit_is_played_at_its_best_arm(policy: Policy, gae_lambda: float, whiten: str) -> None:
    """Responses of one token, of which one is worth 1: the best policy writes it always, the first about one time in 14."""
    config = ppo_config(
        "grpo_config.max_updates=40",
        "grpo_config.batch_size=48",
        "grpo_config.learning_rate=1e-2",
        "grpo_config.max_response_length=1",
        gae_lambda=gae_lambda,
        whiten=whiten,
    )
    steps = trained(policy, config, Given("five", 1.0, lambda completion: float(completion.text == "5")))
    rewards = [step.metrics["reward/mean"] for step in steps]
    assert rewards[0] < 0.25
    assert min(rewards[-3:]) > 0.95


TWO_KINDS = [make_problem(4 * letter + str(i)) for i in range(6) for letter in "ax"]
WORTH = {problem.key: float("x" in problem.prompt[0]["content"]) for problem in TWO_KINDS}
"""half of the problems give 1 whatever is written, the others 0"""


def worth(completion: Completion) -> float:
    return WORTH[completion.problem_key]


def test_the_value_model_learns_what_each_problem_is_worth(policy: Policy) -> None:
    """GRPO finds nothing to learn here, since the responses of a group do not differ."""
    config = ppo_config("grpo_config.max_updates=40", "grpo_config.batch_size=48", "grpo_config.learning_rate=1e-9")
    steps = trained(policy, config, Given("worth", 1.0, worth), problems=TWO_KINDS)
    assert steps[0].metrics["value/mean"] == 0.0
    assert steps[0].metrics["value/explained_variance"] == pytest.approx(0.0, abs=1e-12)
    assert steps[-1].metrics["value/explained_variance"] > 0.8
    assert steps[-1].metrics["value/loss"] < 0.03 < steps[0].metrics["value/loss"]


def sampled(policy: Policy) -> ValueSamples:
    """Responses of the policy, with their rewards."""
    model, tokenizer = load_policy(policy.path, device="cpu")
    responses = sample(model, tokenizer, TWO_KINDS, Sampling(4, 1.0, 8), seed=0, policy_id=policy.id)
    return ValueSamples(responses, [worth(one) for one in responses])


def test_a_warmed_up_value_model_knows_before_the_first_step(policy: Policy) -> None:
    start = value_model(policy, sampled(policy))
    config = ppo_config("grpo_config.max_updates=1", "grpo_config.batch_size=48", value_warmup_updates=40)
    [step] = trained(policy, config, Given("worth", 1.0, worth), start, TWO_KINDS)
    assert step.metrics["value/explained_variance"] > 0.8


def test_a_reward_models_values_are_its_calibrated_scores(policy: Policy) -> None:
    model = load_backbone(Path(policy.path), seed=0)
    torch.nn.init.zeros_(model.get_submodule("score").weight)  # type: ignore[arg-type]
    start = ValueModel(model, Calibration(mean=3.0, std=2.0))
    config = ppo_config("grpo_config.max_updates=1")
    [step] = trained(policy, config, Given("half", 1.0, lambda completion: 0.5), start)
    assert step.metrics["value/mean"] == -1.5  # (0 - 3) / 2


# ---- stopped and gone on --------------------------------------------------------------------------------------------

STATES = ["value_weights", "value_optimizer", "value_warmup"]


def resumable(policy: Policy, precision: str = "float32") -> tuple[Config, Callable[[], ValueModel]]:
    """Six steps of two updates each, after a warm-up of three, and the value model that each attempt begins from."""
    config = ppo_config(
        "grpo_config.max_updates=12",
        "grpo_config.updates_per_batch=2",
        f"grpo_config.precision={precision}",
        "grpo_config.monitor_kl_every=0",
        value_warmup_updates=3,
    )
    samples = sampled(policy)
    return config, lambda: value_model(policy, samples)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_training_goes_on_to_the_same_weights_and_values(
    policy: Policy, tmp_path: Path, precision: str
) -> None:
    config, start = resumable(policy, precision)
    undisturbed = attempt(policy, config, None, value_model=start)
    stopped(policy, config, tmp_path / "stage", after=1, value_model=start)
    stopped(policy, config, tmp_path / "stage", after=4, value_model=start)
    resumed = attempt(policy, config, tmp_path / "stage", value_model=start)
    assert [step.step for step in resumed.steps] == [5, 6]
    assert all(step.metrics["value/loss"] > 0 for step in undisturbed.steps)
    assert same(undisturbed, resumed)


@pytest.mark.parametrize("name", STATES)
def test_each_state_of_the_value_model_is_needed_to_go_on(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config, start = resumable(policy)
    undisturbed = attempt(policy, config, None, value_model=start)
    monkeypatch.setattr(Stepper, "components", without(name, Stepper.components))
    stopped(policy, config, tmp_path / "stage", after=4, value_model=start)
    assert not same(undisturbed, attempt(policy, config, tmp_path / "stage", value_model=start))


def test_a_stop_is_obeyed_within_the_warm_up(policy: Policy) -> None:
    config, start = resumable(policy)
    model, tokenizer = load_policy(policy.path, device="cpu")
    asked = iter([False, True])
    with pytest.raises(StageStopped, match="warm-up of the value model, after update 2"):
        train(
            model, tokenizer, PROBLEMS, policy=policy, initial_policy=policy, rewards=[Given("worth", 1.0, worth)],
            config=config, round_index=1, on_step=lambda step: None, should_stop=lambda: next(asked), value_model=start(),
        )  # fmt: skip
