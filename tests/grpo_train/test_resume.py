"""A training that was stopped and goes on ends like one that was not, and every state in a checkpoint is needed for that."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from configs.disk.checkpoints import Checkpoints
from configs.errors import ConfigError, StageStopped
from configs.records import Completion, Policy
from configs.schema.config import Config
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.step import Stepper, StepResult
from grpo_train.train_result import TrainResult
from grpo_train.trainer import train
from grpo_train.updating.checkpoint import Weights
from grpo_train.updating.critic import ValueModel
from tests.grpo_train.test_trainer import PROBLEMS, Given, fives, tiny_config, weights

STATES = ["weights", "optimizer", "schedule", "picker", "watch", "ledger", "contributions", "gaps", "cache"]
EVERYTHING = (
    "grpo_config.max_updates=8",
    "grpo_config.epochs=4",
    "grpo_config.warmup_updates=3",
    "grpo_config.schedule=linear",
    "grpo_config.response_cache={share: 0.5, min_effective_share: 0}",
    "watch=[{metric: policy/entropy, above: 0.0, patience: 7, action: stop}]",
)
"""each state matters: the learning rate moves, and the watch ends the training after step 7 of 8"""


class Outcome(NamedTuple):
    weights: torch.Tensor
    steps: list[StepResult]
    result: TrainResult


@pytest.fixture
def policy(tiny: Any, tmp_path: Path) -> Policy:
    return save_policy(*tiny, tmp_path / "policy", round_index=0)


def attempt(
    policy: Policy,
    config: Config,
    folder: Path | None,
    *,
    stop_after: int = 1000,
    reward: Callable[[Completion], float] = fives,
    value_model: Callable[[], ValueModel] | None = None,
) -> Outcome:
    """A training from the newest checkpoint in `folder`, as a new process would do it."""
    model, tokenizer = load_policy(policy.path, device="cpu")
    steps: list[StepResult] = []
    checkpoints = None
    if folder is not None:
        folder.mkdir(exist_ok=True)
        checkpoints = Checkpoints(folder, fingerprint="work", every=100, keep=2, warn=pytest.fail)
    result = train(
        model,
        tokenizer,
        PROBLEMS,
        policy=policy,
        initial_policy=policy,
        rewards=[
            Given("fives", 1.0, reward),
            Given("taste", 0.1, lambda completion: len(completion.token_ids) / 16),  # as a reward model, in its place
            Given("correct", 0.2, lambda completion: float("5" in completion.text)),
        ],
        config=config,
        round_index=1,
        on_step=steps.append,
        should_stop=lambda: bool(steps) and steps[-1].step >= stop_after,
        checkpoints=checkpoints,
        value_model=None if value_model is None else value_model(),
    )
    return Outcome(weights(model), steps, result)


def stopped(policy: Policy, config: Config, folder: Path, *, after: int, **options: Any) -> None:
    with pytest.raises(StageStopped):
        attempt(policy, config, folder, stop_after=after, **options)


def told(steps: list[StepResult]) -> list[object]:
    """What journal and rollouts hold of some steps, apart from times."""
    metrics = [{key: value for key, value in s.metrics.items() if not key.startswith("time/")} for s in steps]
    return [(s.step, values, s.rollouts, s.alarms) for s, values in zip(steps, metrics, strict=True)]


def same(one: Outcome, resumed: Outcome) -> bool:
    """Bit-identical weights and the same result, and the same steps from where the resumed one went on."""
    later = one.steps[len(one.steps) - len(resumed.steps) :]
    return (
        torch.equal(one.weights, resumed.weights)
        and one.result == resumed.result
        and told(later) == told(resumed.steps)
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_training_that_goes_on_ends_as_if_it_had_not_been(
    policy: Policy, tmp_path: Path, precision: str
) -> None:
    config = tiny_config(*EVERYTHING, f"grpo_config.precision={precision}")
    undisturbed = attempt(policy, config, None)
    stopped(policy, config, tmp_path / "stage", after=1)
    stopped(policy, config, tmp_path / "stage", after=4)
    resumed = attempt(policy, config, tmp_path / "stage")
    assert [step.step for step in resumed.steps] == [5, 6, 7]
    assert all(step.metrics["policy/grad_norm"] > 0 for step in undisturbed.steps)
    assert same(undisturbed, resumed)


def test_rows_are_sampled_anew_at_each_step_and_alike_in_a_training_that_goes_on(
    policy: Policy, tmp_path: Path
) -> None:
    settings = ("grpo_config.max_updates=4", "grpo_config.epochs=4")
    config = tiny_config(*settings, "grpo_config.row_sampling={share: 0.5}")
    undisturbed = attempt(policy, config, None)
    stopped(policy, config, tmp_path / "stage", after=2)
    assert same(undisturbed, attempt(policy, config, tmp_path / "stage"))
    every_row = attempt(policy, tiny_config(*settings), None)
    assert not torch.equal(every_row.weights, undisturbed.weights)
    of_all = attempt(policy, tiny_config(*settings, "grpo_config.row_sampling={share: 1.0}"), None)
    assert torch.equal(every_row.weights, of_all.weights)
    shares = [step.metrics["tokens/downsampled_share"] for step in undisturbed.steps]
    assert all(0.2 < share < 0.8 for share in shares)
    assert "tokens/downsampled_share" not in every_row.steps[0].metrics
    assert undisturbed.result.tokens["downsampled"] > 0


def without(name: str, components: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    return lambda stepper: {key: value for key, value in components(stepper).items() if key != name}


@pytest.mark.parametrize("name", STATES)
def test_a_checkpoint_without_one_of_its_states_ends_elsewhere(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = tiny_config(*EVERYTHING)
    undisturbed = attempt(policy, config, None)
    monkeypatch.setattr(Stepper, "components", without(name, Stepper.components))
    stopped(policy, config, tmp_path / "stage", after=4)
    assert not same(undisturbed, attempt(policy, config, tmp_path / "stage"))


def test_no_state_is_forgotten_here(policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that is added to the stepper has to be added to the list above, with an option that makes it matter."""
    seen: set[str] = set()
    components = Stepper.components

    def look(stepper: Stepper) -> dict[str, Any]:
        seen.update(components(stepper))
        return components(stepper)

    monkeypatch.setattr(Stepper, "components", look)
    stopped(policy, tiny_config(*EVERYTHING), tmp_path / "stage", after=1)
    assert seen == set(STATES)


def test_a_copy_that_samples_without_the_restored_weights_ends_elsewhere(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(*EVERYTHING, "grpo_config.precision=bfloat16")
    undisturbed = attempt(policy, config, None)
    stopped(policy, config, tmp_path / "stage", after=4)
    init = Weights.__init__
    monkeypatch.setattr(Weights, "__init__", lambda self, model, restored: init(self, model, lambda: None))
    assert not same(undisturbed, attempt(policy, config, tmp_path / "stage"))


def noisy(completion: Completion) -> float:
    """A reward that draws from the generators that dropout draws from."""
    return fives(completion) + float(torch.rand(())) + random.random()


@pytest.mark.parametrize("seeded", [True, False])
def test_the_global_generators_are_seeded_at_each_step(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeded: bool
) -> None:
    if not seeded:
        monkeypatch.setattr("grpo_train.step.set_seed", lambda seed: None)
    config = tiny_config(*EVERYTHING)
    outcomes = []
    for stage, folder in enumerate([None, tmp_path / "stage"]):
        torch.manual_seed(stage)
        random.seed(stage)
        if folder:
            stopped(policy, config, folder, after=4, reward=noisy)
        outcomes.append(attempt(policy, config, folder, reward=noisy))
    assert same(*outcomes) is seeded


def problems_of(steps: list[StepResult]) -> list[list[str]]:
    return [list(dict.fromkeys(row["problem_key"] for row in step.rollouts)) for step in steps]


def test_resuming_in_the_second_epoch_keeps_its_order(policy: Policy, tmp_path: Path) -> None:
    """TRL's sampler replays the first epoch's order there: its generator is in no checkpoint. Ours is seeded by epoch."""
    config = tiny_config("grpo_config.max_updates=null", "grpo_config.epochs=2")
    whole = problems_of(attempt(policy, config, None).steps)
    # 12 problems, 4 a batch: 3 batches an epoch
    assert len(whole) == 6
    assert whole[3:] != whole[:3]
    stopped(policy, config, tmp_path / "stage", after=4)
    assert problems_of(attempt(policy, config, tmp_path / "stage").steps) == whole[4:]


def test_resuming_with_several_updates_a_batch_drops_nothing(policy: Policy, tmp_path: Path) -> None:
    """TRL drops the buffered batch where it resumes between updates on it. Here a checkpoint lies between two batches."""
    config = tiny_config("grpo_config.updates_per_batch=3", "grpo_config.max_updates=9", "grpo_config.epochs=2")
    undisturbed = attempt(policy, config, None)
    stopped(policy, config, tmp_path / "stage", after=2)
    resumed = attempt(policy, config, tmp_path / "stage")
    assert resumed.result.num_updates == 9
    assert same(undisturbed, resumed)
    asked = [key for batch in problems_of([*undisturbed.steps[:2], *resumed.steps]) for key in batch]
    assert Counter(asked) == Counter(problem.key for problem in PROBLEMS)


def test_a_checkpoint_of_another_version_is_refused_with_the_remedy(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(*EVERYTHING)
    stopped(policy, config, tmp_path / "stage", after=2)
    monkeypatch.setattr(Stepper, "components", without("watch", Stepper.components))
    with pytest.raises(ConfigError, match=r"holds .*'watch'.*; remove .*checkpoints to start the stage over"):
        attempt(policy, config, tmp_path / "stage")


def test_no_checkpoint_is_made_after_the_last_step(policy: Policy, tmp_path: Path) -> None:
    """The model is saved there anyway."""
    model, tokenizer = load_policy(policy.path, device="cpu")
    folder = tmp_path / "stage"
    folder.mkdir()
    train(
        model, tokenizer, PROBLEMS, policy=policy, initial_policy=policy, rewards=[Given("fives", 1.0, fives)],
        config=tiny_config("grpo_config.max_updates=3"), round_index=1, on_step=lambda step: None,
        checkpoints=Checkpoints(folder, fingerprint="work", every=1, keep=9, warn=pytest.fail),
    )  # fmt: skip
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == ["step_000001", "step_000002"]
