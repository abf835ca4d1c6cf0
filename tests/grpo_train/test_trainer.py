"""The loop on a small random model, with rewards given as plain functions."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.disk.checkpoints import Checkpoints
from configs.errors import ConfigError, StageStopped, TrainingDiverged
from configs.reader import load_config
from configs.records import Completion, Policy, Problem
from configs.schema.config import Config
from configs.seeds import seed_for
from grpo_train.observers.token_ledger import CLASSES
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.sampling.generation import sample
from grpo_train.step import StepResult
from grpo_train.train_result import TrainResult
from grpo_train.trainer import num_steps, train
from grpo_train.updating.learner import Learner
from grpo_train.updating.response_logprobs import micro_batches
from reward_training.reward import Unscored
from reward_training.transformer.rendering import encode_prompt
from tests.grpo_train.conftest import make_problem
from tests.paths import TINY

PROBLEMS = [make_problem(f"{i} + {i}", str(2 * i)) for i in range(12)]


class Given:
    """A reward that a test writes down."""

    def __init__(self, name: str, weight: float, value: Callable[[Completion], float | Unscored]) -> None:
        self.name, self.weight, self.value = name, weight, value

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[float | Unscored]:
        return [self.value(completion) for completion in completions]


def fives(completion: Completion) -> float:
    """Share of the response that is the digit 5."""
    return completion.text.count("5") / len(completion.token_ids)


def tiny_config(*overrides: str) -> Config:
    path = TINY
    return load_config(path, ["grpo_config.precision=float32", "evaluation.checker=correct", *overrides])


@pytest.fixture
def policy(tiny, tmp_path: Path) -> Policy:
    return save_policy(*tiny, tmp_path / "policy", round_index=0)


def run(
    policy: Policy,
    config: Config,
    reward: Callable[[Completion], float | Unscored] = fives,
    should_stop: Callable[[], bool] = lambda: False,
    problems: Sequence[Problem] = PROBLEMS,
) -> tuple[torch.nn.Module, list[StepResult], TrainResult]:
    model, tokenizer = load_policy(policy.path, device="cpu")
    steps: list[StepResult] = []
    result = train(
        model,
        tokenizer,
        problems,
        policy=policy,
        initial_policy=policy,
        rewards=[Given("fives", 1.0, reward)],
        config=config,
        round_index=1,
        on_step=steps.append,
        should_stop=should_stop,
    )
    return model, steps, result


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_policy_learns_what_is_rewarded(policy):
    config = tiny_config(
        "grpo_config.max_updates=30",
        "grpo_config.epochs=100",
        "grpo_config.batch_size=48",
        "grpo_config.learning_rate=3e-3",
    )
    _, steps, result = run(policy, config)
    rewards = [step.metrics["objective/fives/mean"] for step in steps]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2
    assert result.num_updates == 30
    assert result.advantage_share == {"fives": pytest.approx(1.0)}


def test_the_same_seed_ends_with_the_same_weights_and_another_with_others(policy):
    first, again, other = (run(policy, tiny_config(f"seed={seed}"))[0] for seed in (3, 3, 4))
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_micro_batch_tokens_do_not_change_the_update(policy):
    one = ["grpo_config.max_updates=1", "grpo_config.learning_rate=1e-2"]
    whole, split = (
        run(policy, tiny_config(*one, f"grpo_config.micro_batch_tokens={size}"))[1][0] for size in (10_000, 1)
    )
    assert whole.metrics["policy/grad_norm"] == pytest.approx(split.metrics["policy/grad_norm"], rel=1e-4)
    assert whole.metrics["policy/loss"] == pytest.approx(split.metrics["policy/loss"], abs=1e-6)


def test_dead_groups_cost_no_backward_pass_and_change_nothing(policy, monkeypatch):
    calls = []
    monkeypatch.setattr("grpo_train.updating.learner.response_logprobs", lambda *args: calls.append(args))
    model, steps, _ = run(policy, tiny_config("grpo_config.max_updates=2"), reward=lambda completion: 0.5)
    assert calls == []
    assert steps[0].metrics["groups/dead_share"] == 1.0
    assert steps[0].metrics["policy/grad_norm"] == 0.0
    assert torch.equal(weights(model), weights(load_policy(policy.path, device="cpu")[0]))


@pytest.mark.parametrize("method", ["{kind: grpo}", "{kind: rloo}", "{kind: best_of_n, min_score: 2}"])
def test_a_training_in_which_no_response_moved_the_policy_says_so(policy, method):
    """An online best-of-N without anything to imitate was promoted after eight updates on nothing, without a word."""
    scale = [] if method == "{kind: grpo}" else ["combination={scale: none}"]
    config = tiny_config("grpo_config.max_updates=2", f"method={method}", *scale)
    model, _, result = run(policy, config, lambda completion: 0.5)
    assert result.untrained is not None
    assert result.untrained.startswith("nothing was trained: in each of 2 steps every group was dead or unscored")
    assert ("min_score" in result.untrained) == ("best_of_n" in method)
    before, _ = load_policy(policy.path, device="cpu")
    assert torch.equal(weights(model), weights(before))
    _, _, trained = run(policy, tiny_config("grpo_config.max_updates=2"), fives)
    assert trained.untrained is None


def test_with_a_kl_term_dead_groups_keep_their_backward_pass(policy):
    config = tiny_config("grpo_config.kl_coefficient=0.1", "grpo_config.max_updates=3")
    _, steps, _ = run(policy, config)
    assert steps[0].metrics["policy/kl_reference"] == pytest.approx(0.0, abs=1e-5)
    assert steps[2].metrics["policy/kl_reference"] > 1e-4


def test_a_strong_kl_term_holds_the_policy_near_the_reference(policy):
    kl = {}
    for coefficient in (0.0, 10.0):
        config = tiny_config(
            f"grpo_config.kl_coefficient={coefficient}",
            "grpo_config.max_updates=15",
            "grpo_config.epochs=20",
            "grpo_config.monitor_kl_every=15",
        )
        kl[coefficient] = run(policy, config)[1][-1].metrics["policy/kl_initial"]
    assert kl[10.0] < kl[0.0] / 3


def test_several_updates_on_a_batch_see_ratios_other_than_one(policy):
    config = tiny_config(
        "grpo_config.updates_per_batch=4", "grpo_config.max_updates=8", "grpo_config.learning_rate=1e-2"
    )
    _, steps, result = run(policy, config)
    assert len(steps) == 2
    assert result.num_updates == 8
    assert steps[0].metrics["policy/clip_fraction"] > 0


def test_a_response_is_compared_with_the_others_of_its_group_where_the_baseline_leaves_it_out(policy):
    config = tiny_config("combination.baseline=leave_one_out", "combination.scale=none", "grpo_config.max_updates=1")
    rows = run(policy, config)[1][0].rollouts
    for start in range(0, 16, 4):
        totals = [row["total"] for row in rows[start : start + 4]]
        for row in rows[start : start + 4]:
            assert row["advantage"] == pytest.approx(row["total"] - (sum(totals) - row["total"]) / 3)


def test_truncated_responses_are_left_out_where_configured(policy):
    config = tiny_config("grpo_config.truncated=leave_out", "grpo_config.max_updates=1", "grpo_config.batch_size=48")
    rows = run(policy, config)[1][0].rollouts
    truncated = [row for row in rows if row["finish_reason"] == "length"]
    assert any(row["total"] > 0 for row in truncated)
    assert all(row["advantage"] == 0 for row in truncated)
    assert any(row["advantage"] != 0 for row in rows)


def test_the_learning_rate_warms_up_and_decays(policy):
    config = tiny_config(
        "grpo_config.warmup_updates=2",
        "grpo_config.schedule=linear",
        "grpo_config.max_updates=6",
        "grpo_config.epochs=10",
        "grpo_config.learning_rate=1e-3",
    )
    rates = [step.metrics["policy/learning_rate"] for step in run(policy, config)[1]]
    # the rate of each update: 2 warm-up updates, then down over 4, to the 0 that a seventh would have
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_nothing_logged_is_nan_and_shares_add_up(policy):
    for step in run(policy, tiny_config())[1]:
        assert all(value == value for value in step.metrics.values())
        assert step.metrics["objective/fives/advantage_share"] == pytest.approx(1.0)
        assert len(step.rollouts) == 16
        assert step.rollouts[0].keys() >= {"step", "prompt", "text", "parts", "advantage"}


def test_every_token_of_a_step_and_of_the_round_is_in_one_class(policy):
    _, steps, result = run(policy, tiny_config())
    for step in steps:
        num_tokens = sum(row["num_tokens"] for row in step.rollouts)
        shares = [step.metrics[f"tokens/{name}_share"] for name in CLASSES]
        assert step.metrics["tokens/generated"] == num_tokens
        assert sum(shares) == pytest.approx(1.0)
        assert 0 < step.metrics["tokens/padding_share"] < 1
    total = sum(step.metrics["tokens/generated"] for step in steps)
    assert sum(result.tokens[name] for name in CLASSES) == total
    cut = [r for step in steps for r in step.rollouts if r["finish_reason"] == "length" and r["advantage"] != 0]
    assert result.tokens["truncated"] >= sum(row["num_tokens"] for row in cut) > 0


def test_diverging_stops_with_the_last_good_weights(policy, monkeypatch):
    """A NaN loss must not reach the optimizer."""
    import grpo_train.updating.learner as learner

    real, calls = learner.policy_loss, []

    def poisoned(*args, **kwargs):
        loss = real(*args, **kwargs)
        calls.append(loss)
        return loss if len(calls) <= 2 else replace(loss, value=loss.value * float("nan"))

    monkeypatch.setattr(learner, "policy_loss", poisoned)
    model, tokenizer = load_policy(policy.path, device="cpu")
    kept = []
    with pytest.raises(TrainingDiverged, match=r"nan.*learning_rate"):
        train(
            model,
            tokenizer,
            PROBLEMS,
            policy=policy,
            initial_policy=policy,
            rewards=[Given("fives", 1.0, fives)],
            config=tiny_config(),
            round_index=1,
            on_step=lambda step: kept.append(weights(model)),
        )
    assert len(kept) == 1
    assert torch.equal(weights(model), kept[-1])


def test_a_watch_rule_ends_training_early(policy):
    config = tiny_config("watch=[{metric: policy/entropy, above: 0.0, patience: 2, action: stop}]")
    _, steps, result = run(policy, config)
    assert len(steps) == 2
    assert "policy/entropy" in result.stopped_by


@pytest.mark.parametrize(
    ("rule", "num_steps", "rolled_back_to"),
    [
        ("{metric: policy/entropy, above: 0.0, patience: 2}", 2, 0),  # out of bounds from the start
        ("{metric: curriculum/epoch, above: 1.2, patience: 2}", 5, 2),  # a third an update: from the fourth on
        (
            "{metric: curriculum/epoch, above: 0.9, patience: 2}",
            4,
            0,
        ),  # from the third on, which step 2's weights wrote
    ],
)
def test_a_watch_rule_takes_the_policy_back_to_before_it_went_wrong(rule, num_steps, rolled_back_to, policy, tmp_path):
    rule = rule.replace("}", ", action: roll_back}")
    config = tiny_config(f"watch=[{rule}]", "grpo_config.save_steps=2", "grpo_config.epochs=2")
    model, tokenizer = load_policy(policy.path, device="cpu")
    after = {0: weights(model)}
    checkpoints = Checkpoints(tmp_path, fingerprint="work", every=2, keep=2, warn=pytest.fail)
    result = train(
        model,
        tokenizer,
        PROBLEMS,
        policy=policy,
        initial_policy=policy,
        rewards=[Given("fives", 1.0, fives)],
        config=config,
        round_index=1,
        on_step=lambda step: after.__setitem__(step.step, weights(model)),
        checkpoints=checkpoints,
    )
    assert (result.num_updates, result.rolled_back_to) == (num_steps, rolled_back_to)
    assert torch.equal(weights(model), after[rolled_back_to])
    assert not torch.equal(after[num_steps], after[rolled_back_to])


def test_a_patience_that_outlives_the_checkpoints_is_refused():
    with pytest.raises(ConfigError, match=r"save_steps=2 must be at least their patience"):
        tiny_config("watch=[{metric: policy/entropy, above: 0.0, patience: 3, action: roll_back}]")


def test_a_stop_is_obeyed_between_steps(policy):
    asked = iter([False, True])
    with pytest.raises(StageStopped, match="before step 2"):
        run(policy, tiny_config(), should_stop=lambda: next(asked))


def test_too_many_unscored_completions_stop_the_stage(policy):
    with pytest.raises(ValueError, match="fives"):
        run(policy, tiny_config(), reward=lambda completion: Unscored("away"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["grpo_config.epochs=1"], 3),
        (["grpo_config.epochs=2"], 6),
        (["grpo_config.epochs=1", "grpo_config.max_updates=2"], 2),
        (["grpo_config.epochs=9", "grpo_config.max_updates=6", "grpo_config.updates_per_batch=4"], 2),
    ],
)
def test_steps_are_epochs_over_batches_capped_by_updates(overrides, expected):
    # 12 problems in groups of 4 are 48 responses, 16 an update
    assert num_steps(tiny_config("grpo_config.max_updates=null", *overrides).grpo_config, 12) == expected


# ---- dynamic sampling -----------------------------------------------------------------------------------------------

DEAD = {problem.key for problem in PROBLEMS[::2]}


def fives_where_alive(completion: Completion) -> float:
    """Half of the problems are dead: all their responses are worth the same."""
    return 0.5 if completion.problem_key in DEAD else fives(completion) + 1e-3 * completion.index


def test_after_refill_the_update_is_that_of_a_batch_of_living_groups(policy, monkeypatch):
    updates = []
    update = Learner.update

    def spy(learner, completions, advantages, *others):
        updates.append((completions, advantages))
        return update(learner, completions, advantages, *others)

    monkeypatch.setattr(Learner, "update", spy)
    config = tiny_config("grpo_config.max_updates=1", "grpo_config.refill=8")
    model, (step,), _ = run(policy, config, fives_where_alive)
    [(completions, advantages)] = updates
    assert len(completions) == config.grpo_config.batch_size
    assert not {c.problem_key for c in completions} & DEAD
    assert step.metrics["groups/dead_share"] == 0.0

    # the same groups as a batch of their own, their advantages by hand
    rewards = np.array([fives_where_alive(c) for c in completions]).reshape(4, 4)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    by_hand = (centred / (rewards.std(axis=1, ddof=1, keepdims=True) + 1e-4)).reshape(-1)
    assert advantages.values == pytest.approx(by_hand)
    fresh, _ = load_policy(policy.path, device="cpu")
    learner = Learner(fresh, config.grpo_config, policy=policy, initial_policy=policy, num_updates=1)
    update(learner, completions, replace(advantages, values=by_hand))
    assert torch.allclose(weights(fresh), weights(model), atol=1e-6)
    assert not torch.equal(weights(model), weights(load_policy(policy.path, device="cpu")[0]))


def test_refused_groups_are_counted_dead_and_shown(policy):
    config = tiny_config("grpo_config.max_updates=1", "grpo_config.refill=8")
    _, (step,), result = run(policy, config, fives_where_alive)
    refused = [row for row in step.rollouts if row["refused"]]
    assert refused
    assert {row["problem_key"] for row in refused} <= DEAD
    assert {row["advantage"] for row in refused} == {0.0}
    assert step.metrics["groups/refused"] == len(refused) / 4
    assert result.tokens["dead"] == sum(row["num_tokens"] for row in refused)
    assert step.metrics["tokens/generated"] == sum(row["num_tokens"] for row in step.rollouts)
    # each of the 12 problems that was asked counts as seen
    assert step.metrics["curriculum/epoch"] == pytest.approx(len(step.rollouts) / 4 / 12)


def test_refill_ends_at_its_bound_and_off_is_as_before(policy):
    dead, once = ["grpo_config.max_updates=1", "grpo_config.refill=0"], ["grpo_config.refill=1"]
    _, (off,), _ = run(policy, tiny_config(*dead), lambda completion: 0.5)
    _, (one,), _ = run(policy, tiny_config(*dead, *once), lambda completion: 0.5)
    assert "groups/refused" not in off.metrics
    assert (len(off.rollouts), len(one.rollouts)) == (16, 32)
    assert (one.metrics["groups/refused"], one.metrics["groups/refills"]) == (4.0, 1.0)
    assert (one.metrics["groups/dead_share"], one.metrics["policy/grad_norm"]) == (1.0, 0.0)


def test_further_rounds_of_sampling_draw_with_seeds_of_their_own(policy, monkeypatch):
    seeds = []

    def spy(*args, seed, **kwargs):
        seeds.append(seed)
        return sample(*args, seed=seed, **kwargs)

    monkeypatch.setattr("grpo_train.rollouts.sample", spy)
    run(policy, tiny_config("grpo_config.max_updates=1", "grpo_config.refill=2"), lambda completion: 0.5)
    assert seeds == [seed_for(0, "train sampling", round_index=1, step=1, index=number) for number in (0, 1, 2)]


# ---- curriculum and wordings ----------------------------------------------------------------------------------------


def test_a_threshold_asks_easy_problems_first(policy):
    graded = [problem.model_copy(update={"difficulty": i / 12}) for i, problem in enumerate(PROBLEMS)]
    easy = {problem.key for problem in graded if problem.difficulty <= 0.5}
    config = tiny_config("curriculum={kind: threshold, start: 0.4, slope: 0.2}", "grpo_config.max_updates=2")
    _, steps, result = run(policy, config, problems=graded)
    # epochs 0 and 1/3 let in difficulties up to 0.4 and 0.47
    assert {row["problem_key"] for step in steps for row in step.rollouts} <= easy
    assert steps[1].metrics["curriculum/threshold"] == pytest.approx(0.4 + 0.2 * 2 / 3)
    assert result.curriculum["epoch"] == pytest.approx(2 / 3)


def test_a_band_learns_pass_rates_from_the_groups(policy):
    config = tiny_config(
        "curriculum={kind: band}",
        "grpo_config.max_updates=1",
        "rewards=[{name: fives, kind: format, pattern: '5'}]",
        "reward_models={}",
        "evaluation.checker=fives",
    )
    _, (step,), result = run(policy, config, lambda completion: float("5" in completion.text))
    right: dict[str, list[float]] = {}
    for row in step.rollouts:
        right.setdefault(row["problem_key"], []).append(row["parts"]["fives"])
    rates = {key: rate for key, (rate, _) in result.curriculum["rates"].items()}
    assert rates == {key: pytest.approx(sum(values) / 4) for key, values in right.items()}
    assert len(rates) == 4


def test_steps_ask_in_different_wordings_and_train_on_the_prompt_that_was_seen(policy, monkeypatch):
    wordings = ["Now {}.", "So {}?", "{} is what?"]
    worded = [
        problem.model_copy(
            update={
                "variants": [[{"role": "user", "content": w.format(problem.prompt[0]["content"])}] for w in wordings]
            }
        )
        for problem in PROBLEMS[:4]
    ]
    trained = []

    def spy(model, completions, rows, size):
        for batch in micro_batches(model, completions, rows, size):
            for line, row in enumerate(batch.rows):
                path = batch.packed.input_ids.flatten()[batch.packed.nodes[line]].tolist()
                trained.append((path[: len(completions[row].prompt_ids)], completions[row]))
            yield batch

    monkeypatch.setattr("grpo_train.updating.learner.micro_batches", spy)
    config = tiny_config("grpo_config.max_updates=4", "grpo_config.epochs=4")
    _, steps, _ = run(policy, config, problems=worded)
    _, tokenizer = load_policy(policy.path, device="cpu")
    seen: dict[tuple[int, str], set[tuple[int, ...]]] = {}
    for row in (row for step in steps for row in step.rollouts):
        ids = encode_prompt(tokenizer, make_problem("x").model_copy(update={"prompt": row["prompt"]}))
        seen.setdefault((row["step"], row["problem_key"]), set()).add(tuple(ids))
    assert {len(prompts) for prompts in seen.values()} == {1}, "a group shares its wording"
    assert all(len(set.union(*(seen[step, p.key] for step in (1, 2, 3, 4)))) > 1 for p in worded)
    assert trained
    for ids, completion in trained:
        assert ids == completion.prompt_ids
        assert {tuple(ids)} == seen[completion.step, completion.problem_key]
