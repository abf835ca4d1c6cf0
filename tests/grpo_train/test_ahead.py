"""Servers that write the next step's responses while the trainer works on this step's: what they write with, and what it costs nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.disk.checkpoints import Checkpoints
from configs.errors import ServerAway, ServerRefused, StageStopped, TrainingDiverged
from configs.records import Completion, Policy
from configs.schema.config import Config
from configs.seeds import seed_for
from grpo_train.following import Serving
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from grpo_train.problems.picking.curriculum import ProblemPicker
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.sampling.vllm import post
from grpo_train.step import StepResult
from grpo_train.train_result import TrainResult
from grpo_train.trainer import train
from grpo_train.updating.advantages import group_advantages
from grpo_train.updating.learner import Learner
from tests.grpo_train.sampling.vllm.serving import Refusal, Served, serve
from tests.grpo_train.test_following import configured, distance
from tests.grpo_train.test_trainer import PROBLEMS, Given, fives

AHEAD = ("grpo_config.vllm.max_staleness=1", "grpo_config.max_updates=4", "grpo_config.epochs=4")
BAND = ("curriculum={kind: band, low: 0.9, high: 1.0}", "grpo_config.max_updates=6")
"""a curriculum that would have all problems wait once they were asked, which is when the fifth step is picked"""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(post, "SURE_FOR_S", 0.2)


@pytest.fixture
def policy(tiny: Any, tmp_path: Path) -> Policy:
    return save_policy(*tiny, tmp_path / "policy", round_index=0)


@pytest.fixture
def served() -> Iterator[Served]:
    tokenizer = build_tiny_tokenizer()
    with serve(build_tiny_model(tokenizer, seed=5), tokenizer) as server:
        yield server


class Outcome(NamedTuple):
    weights: dict[str, Tensor]
    steps: list[StepResult]
    result: TrainResult


def attempt(
    policy: Policy,
    config: Config,
    folder: Path,
    *,
    stop_after: int = 1000,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[StepResult], None] = lambda step: None,
) -> Outcome:
    """A training from the newest checkpoint in `folder`, as a new process would do it; it stops after a step."""
    model, tokenizer = load_policy(policy.path, device="cpu")
    steps: list[StepResult] = []

    def ended(step: StepResult) -> None:
        steps.append(step)
        on_step(step)

    folder.mkdir(exist_ok=True)
    result = train(
        model,
        tokenizer,
        PROBLEMS,
        policy=policy,
        initial_policy=policy,
        rewards=[Given("correct", 1.0, fives)],
        config=config,
        round_index=1,
        on_step=ended,
        should_stop=lambda: bool(steps) and steps[-1].step >= stop_after,
        checkpoints=Checkpoints(folder, fingerprint="work", every=100, keep=2, warn=pytest.fail),
        serving=Serving(folder / "served", policy, warn=[].append, should_stop=should_stop),
    )
    assert writers() == []
    return Outcome({name: weight.clone() for name, weight in model.state_dict().items()}, steps, result)


def writers() -> list[threading.Thread]:
    """Threads that still write, once those that end had time to; the stand-in's own have other names."""
    deadline = time.monotonic() + 5
    while found := [each for each in threading.enumerate() if each.name.endswith(("(_work)", "(_serve)"))]:
        if time.monotonic() > deadline:
            return found
        time.sleep(0.02)
    return []


def told(steps: list[StepResult]) -> list[Any]:
    """What journal and rollouts hold, apart from what describes the process."""
    of_process = ("time/", "vllm/")
    return [
        ({key: value for key, value in step.metrics.items() if not key.startswith(of_process)}, step.rollouts)
        for step in steps
    ]


# ---- who writes what ------------------------------------------------------------------------------------------------


def reference(policy: Policy, config: Config, num_steps: int) -> tuple[dict[str, Tensor], list[list[str]]]:
    """(weights at the end, texts of each step) of a plain loop, in which a model of its own writes each batch with the weights of
    two steps before, or the first ones."""
    grpo = config.grpo_config
    model, tokenizer = load_policy(policy.path, device="cpu")
    writer, _ = load_policy(policy.path, device="cpu")
    learner = Learner(model, grpo, policy=policy, initial_policy=policy, num_updates=num_steps)
    picker = ProblemPicker(PROBLEMS, config.curriculum, seed=config.seed, round_index=1)
    sampling = Sampling(grpo.group_size, grpo.temperature, grpo.max_response_length, max_rows=grpo.generation_rows)
    past = [{name: weight.clone() for name, weight in model.state_dict().items()}]
    texts = []
    for step in range(1, num_steps + 1):
        writer.load_state_dict(past[max(step - 2, 0)])
        problems = picker.pick(grpo.batch_size // grpo.group_size)
        seed = seed_for(config.seed, "train sampling", round_index=1, step=step, index=0)
        completions = sample(writer, tokenizer, problems, sampling, seed=seed, policy_id="writer", step=step)
        parts = np.array([[fives(completion)] for completion in completions])
        learner.update(completions, group_advantages(parts, np.array([0.2]), grpo.group_size))
        past.append({name: weight.clone() for name, weight in model.state_dict().items()})
        texts.append([completion.text for completion in completions])
    return past[-1], texts


@pytest.mark.parametrize(
    "settings",
    [[], ["grpo_config.updates_per_batch=2", "grpo_config.max_updates=8"], ["grpo_config.loss=gspo"]],
    ids=["plain", "two updates a batch", "gspo"],
)
def test_it_trains_as_a_loop_whose_batches_are_written_by_the_weights_of_two_steps_before(
    policy: Policy, served: Served, tmp_path: Path, settings: list[str]
) -> None:
    config = configured([served], *AHEAD, *settings)
    found = attempt(policy, config, tmp_path / "stage")
    expected, texts = reference(policy, config, num_steps=4)
    assert [[row["text"] for row in step.rollouts] for step in found.steps] == texts
    assert distance(load_policy(policy.path, device="cpu")[0].state_dict(), expected) > 1e-3  # it learned something
    assert distance(found.weights, expected) < 1e-4


def test_each_response_has_the_seed_of_its_step_and_the_weights_of_the_one_before(
    policy: Policy, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote: list[tuple[str, int]] = []
    write = served._write

    def noted(body: dict[str, Any]) -> Any:
        wrote.append((served.version.partition("+")[2].partition("/")[0], body["seed"]))
        return write(body)

    monkeypatch.setattr(served, "_write", noted)
    on_time = attempt(policy, configured([served], *AHEAD, "grpo_config.vllm.max_staleness=0"), tmp_path / "on time")
    seeds = [seed for _, seed in wrote]
    assert Counter(version for version, _ in wrote) == {"0": 16, "1": 16, "2": 16, "3": 16}
    wrote.clear()
    ahead = attempt(policy, configured([served], *AHEAD), tmp_path / "ahead")
    assert Counter(version for version, _ in wrote) == {"0": 32, "1": 16, "2": 16}
    for step, version in enumerate(["0", "0", "1", "2"]):
        its = slice(16 * step, 16 * step + 16)
        assert {found for found, _ in wrote[its]} == {version}
        assert sorted(seed for _, seed in wrote[its]) == sorted(seeds[its])
    assert [step.metrics["policy/staleness"] for step in ahead.steps] == [0, 1, 1, 1]
    assert [{row["written_at"] for row in step.rollouts} for step in ahead.steps] == [{1}, {1}, {2}, {3}]
    assert ["policy/sampler_mismatch" in step.metrics for step in ahead.steps] == [True, False, False, False]
    assert all("policy/staleness" not in step.metrics for step in on_time.steps)
    for step in ahead.steps:
        assert step.metrics["vllm/mismatch"] < 1e-4
    assert len(ahead.result.known) == len(on_time.result.known) == 12
    # both ask the same problems, in the same order
    keys = [[[row["problem_key"] for row in step.rollouts] for step in one.steps] for one in (on_time, ahead)]
    assert keys[0] == keys[1]


def test_importance_weights_are_the_learners_probability_over_the_writers(
    policy: Policy, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand: list[tuple[float, float]] = []
    update = Learner.update

    def noted(self: Learner, completions: list[Completion], advantages: Any, *others: Any) -> dict[str, float]:
        ratios, distances = [], []
        for completion, moves in zip(completions, advantages.moves, strict=True):
            if not moves:
                continue
            ids, start = completion.prompt_ids + completion.token_ids, len(completion.prompt_ids)
            with torch.no_grad():
                logprobs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            for i, token in enumerate(completion.token_ids):
                log_ratio = float(logprobs[start + i - 1, token]) - completion.logprobs[i]
                ratios.append(min(np.exp(log_ratio), 1.05))
                distances.append(abs(log_ratio))
        by_hand.append((float(np.mean(ratios)), float(np.mean(distances))))
        return update(self, completions, advantages, *others)

    monkeypatch.setattr(Learner, "update", noted)
    config = configured([served], *AHEAD, "grpo_config.vllm.max_importance_weight=1.05")
    steps = attempt(policy, config, tmp_path / "stage").steps
    assert steps[0].metrics["policy/importance_too_high"] == 0
    for step, (weight, moved) in zip(steps[1:], by_hand[1:], strict=True):
        assert step.metrics["policy/importance_weight"] == pytest.approx(weight, rel=1e-4)
        assert step.metrics["policy/writer_distance"] == pytest.approx(moved, rel=1e-3)
        assert moved > 0.01
        assert step.metrics["policy/importance_too_high"] > 0


def test_servers_write_while_the_trainer_updates(
    policy: Policy, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each update but the last lasts until the responses of the next step have been written, which without overlap never happens."""
    update, num_updates, responses = Learner.update, iter(range(1, 5)), []
    write = served._write
    monkeypatch.setattr(served, "_write", lambda body: (responses.append(body), write(body))[1])

    def slow(self: Learner, *arguments: Any) -> dict[str, float]:
        step, deadline = next(num_updates), time.monotonic() + 60
        while len(responses) < 16 * min(step + 1, 4):
            assert time.monotonic() < deadline, f"{len(responses)} responses at step {step}"
            time.sleep(0.01)
        time.sleep(0.3)  # the last answer is under way
        return update(self, *arguments)

    monkeypatch.setattr(Learner, "update", slow)
    steps = attempt(policy, configured([served], *AHEAD), tmp_path / "stage").steps
    times = [(step.metrics["time/generate"], step.metrics["time/overlapped"]) for step in steps]
    assert times[0][0] > 0
    assert times[0][1] < 0.1  # nothing else to do
    for waited, overlapped in times[1:]:
        assert waited < 0.1
        assert overlapped > 0


# ---- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [(), BAND], ids=["plain", "curriculum"])
def test_a_training_that_stops_after_each_step_and_goes_on_ends_with_the_same_bits(
    policy: Policy, served: Served, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    config = configured([served], *AHEAD, *settings)
    undisturbed = attempt(policy, config, tmp_path / "whole")
    steps: list[StepResult] = []
    for step in (1, 3, 4, 5) if settings else (1, 2, 3):
        with pytest.raises(StageStopped):
            attempt(policy, config, tmp_path / "stage", stop_after=step, on_step=steps.append)
        assert writers() == []
    resumed = attempt(policy, config, tmp_path / "stage", on_step=steps.append)
    assert [step.step for step in resumed.steps] == [len(undisturbed.steps)]
    assert told(steps) == told(undisturbed.steps)
    assert all(torch.equal(weight, resumed.weights[name]) for name, weight in undisturbed.weights.items())
    assert resumed.result.curriculum == undisturbed.result.curriculum
    assert resumed.result.tokens == undisturbed.result.tokens
    if settings:
        assert [step.metrics["curriculum/widened"] for step in steps] == [0, 0, 0, 0, 4, 0]


def test_without_the_batch_in_the_checkpoint_it_ends_elsewhere(
    policy: Policy, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured([served], *AHEAD)
    undisturbed = attempt(policy, config, tmp_path / "whole")
    with pytest.raises(StageStopped):
        attempt(policy, config, tmp_path / "stage", stop_after=2)
    monkeypatch.setattr("grpo_train.ahead.Ahead.restore", lambda self, state: None)
    resumed = attempt(policy, config, tmp_path / "stage")
    assert distance(undisturbed.weights, resumed.weights) > 1e-5


def test_a_watch_rule_ends_the_training_and_rolls_it_back_while_servers_write(
    policy: Policy, served: Served, tmp_path: Path
) -> None:
    rule = "watch=[{metric: policy/staleness, above: 0.5, patience: 2, action: roll_back}]"
    config = configured([served], *AHEAD, rule, "grpo_config.save_steps=3")
    outcome = attempt(policy, config, tmp_path / "stage")
    assert [step.step for step in outcome.steps] == [1, 2, 3]
    assert outcome.result.rolled_back_to == 0
    start, _ = load_policy(policy.path, device="cpu")
    assert distance(outcome.weights, start.state_dict()) == 0


# ---- faults ---------------------------------------------------------------------------------------------------------


def during_step(served: Served, monkeypatch: pytest.MonkeyPatch, step: int, fault: Callable[[], None]) -> None:
    """Let a fault happen before the first response of a step."""
    write, num_before = served._write, iter(range(1000))

    def faulty(body: dict[str, Any]) -> Any:
        if next(num_before) == 16 * (step - 1):
            fault()
        return write(body)

    monkeypatch.setattr(served, "_write", faulty)


def test_what_servers_refuse_ahead_ends_the_step_that_wants_it(
    policy: Policy, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise Refusal(400, "not this one")

    during_step(served, monkeypatch, 3, refuse)
    steps: list[StepResult] = []
    with pytest.raises(ServerRefused, match="not this one"):
        attempt(policy, configured([served], *AHEAD), tmp_path / "stage", on_step=steps.append)
    assert [step.step for step in steps] == [1, 2]
    assert writers() == []


def test_a_server_that_stays_away_ends_the_step_that_wants_its_responses(
    policy: Policy, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    during_step(served, monkeypatch, 2, lambda: setattr(served, "is_dead", True))
    config = configured([served], *AHEAD, "grpo_config.vllm.patience_s=0.5")
    steps: list[StepResult] = []
    with pytest.raises(ServerAway, match="patience_s"):
        attempt(policy, config, tmp_path / "stage", on_step=steps.append)
    assert [step.step for step in steps] == [1]
    assert writers() == []


def test_a_server_that_is_restarted_while_it_writes_ahead_changes_nothing(
    policy: Policy, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured([served], *AHEAD)
    quiet = attempt(policy, config, tmp_path / "quiet")

    def die() -> None:
        served.is_dead = True
        threading.Timer(0.5, served.restart).start()

    during_step(served, monkeypatch, 3, die)
    shaken = attempt(policy, config, tmp_path / "shaken")
    assert all(torch.equal(weight, shaken.weights[name]) for name, weight in quiet.weights.items())
    assert shaken.steps[-1].metrics["vllm/waits"] >= 1


def test_a_stop_while_servers_give_nothing_ends_the_training(
    policy: Policy, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reward_training.waiting.QUIET_S", 0.3)
    is_asked = threading.Event()

    def hang() -> None:
        is_asked.set()
        time.sleep(3)

    during_step(served, monkeypatch, 3, hang)
    with pytest.raises(StageStopped, match="waiting for a vLLM server"):
        attempt(policy, configured([served], *AHEAD), tmp_path / "stage", should_stop=is_asked.is_set)


@pytest.mark.parametrize("error", [TrainingDiverged("loss is nan"), KeyboardInterrupt()], ids=["diverged", "Ctrl-C"])
def test_a_training_that_ends_in_the_middle_of_a_step_leaves_nothing_behind(
    policy: Policy, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """The servers have more to write than there is time for."""
    update, num_updates = Learner.update, iter([1, 2])

    def ends(self: Learner, *arguments: Any) -> dict[str, float]:
        if next(num_updates) == 2:
            raise error
        return update(self, *arguments)

    monkeypatch.setattr(Learner, "update", ends)
    during_step(served, monkeypatch, 3, lambda: setattr(served, "hangs_s", 0.5))
    began = time.monotonic()
    with pytest.raises(type(error)):
        attempt(policy, configured([served], *AHEAD, "grpo_config.generation_rows=1"), tmp_path / "stage")
    assert writers() == []
    assert time.monotonic() - began < 16 * 0.5
