"""Pairs of scored responses, and training on them, against losses that are written out in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from configs.disk.checkpoints import Checkpoints
from configs.errors import ConfigError, StageStopped, TrainingDiverged
from configs.records import Completion
from configs.schema.grpo import GrpoConfig, LoraConfig
from configs.schema.methods.offline import DpoMethod, IpoMethod
from grpo_train.methods.dpo import PairTrainer, TrainingPair, find_pairs, train_on_pairs
from grpo_train.methods.given_samples import Training, in_epochs
from grpo_train.policies.adapter import Adapter
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer

Method = DpoMethod | IpoMethod


def response(key: str, index: int, *token_ids: int) -> Completion:
    return Completion(
        problem_key=key, index=index, prompt_ids=[3, 50, 51], token_ids=list(token_ids), text=f"{token_ids}",
        finish_reason="stop", logprobs=[0.0] * len(token_ids), policy_id="p", step=0, seed=0,
    )  # fmt: skip


def found(totals: list[float | None], *, per_problem: int = 1, min_margin: float = 0.0) -> list[tuple[int, int]]:
    """Positions of better and worse responses, for one problem with different responses."""
    completions = [response("a", i, 10 + i, 4) for i in range(len(totals))]
    made = find_pairs(completions, totals, per_problem=per_problem, min_margin=min_margin)
    return [pair.indices for pair in made.pairs]


# ---- pairs ----------------------------------------------------------------------------------------------------------


def test_the_best_response_meets_the_worst_and_the_second_best_the_second_worst() -> None:
    totals = [0.5, 2.0, -1.0, 1.0, 0.0]
    assert found(totals) == [(1, 2)]
    assert found(totals, per_problem=2) == [(1, 2), (3, 4)]
    assert found(totals, per_problem=9) == [(1, 2), (3, 4)]  # the response in the middle meets nobody


def test_a_pair_differs_by_more_than_the_margin() -> None:
    assert found([1.0, 1.0]) == []
    assert found([1.0, 0.5], min_margin=0.5) == []
    assert found([1.0, 0.25, 0.5, 0.5], per_problem=2, min_margin=0.5) == [(0, 1)]


def test_of_equal_totals_the_earlier_response_is_the_better_and_the_later_the_worse() -> None:
    assert found([1.0, 1.0, 0.0, 0.0]) == [(0, 3)]


def test_a_response_that_could_not_be_scored_is_in_no_pair() -> None:
    assert found([None, 1.0, 0.0]) == [(1, 2)]
    assert found([None, 1.0]) == []


def test_groups_without_a_pair_and_unscored_responses_are_counted() -> None:
    """a lives; b has equal totals; c has one scored response; d the same response twice."""
    rows = [("a", 10, 1.0), ("a", 11, 0.0), ("b", 10, 1.0), ("b", 11, 1.0), ("c", 10, 1.0), ("c", 11, None)]
    rows += [("d", 10, 1.0), ("d", 10, 0.0)]
    completions = [response(key, i % 2, token, 4) for i, (key, token, _) in enumerate(rows)]
    made = find_pairs(completions, [total for _, _, total in rows], per_problem=1, min_margin=0.0)
    assert made.metrics == {"pairs/made": 1.0, "pairs/dead_groups": 3.0, "pairs/unscored": 1.0}
    assert made.dead_keys == {"b", "c", "d"}


def test_a_pair_has_the_tokens_of_prompt_and_responses_as_they_were_written() -> None:
    made = find_pairs(
        [response("a", 0, 10, 4), response("a", 1, 11, 12, 4)], [0.25, 1.0], per_problem=1, min_margin=0.0
    )
    assert made.pairs == [
        TrainingPair(
            problem_key="a", indices=(1, 0), margin=0.75, prompt_ids=[3, 50, 51], chosen_ids=[11, 12, 4],
            rejected_ids=[10, 4], chosen="(11, 12, 4)", rejected="(10, 4)",
        )
    ]  # fmt: skip


# ---- training -------------------------------------------------------------------------------------------------------

PAIRS = [
    TrainingPair(
        problem_key=f"{i}", indices=(0, 1), margin=1.0, prompt_ids=[3, 40 + i, 60], chosen_ids=[10 + i, 20, 4],
        rejected_ids=[30, 10 + i, 31, 32, 4][: 2 + i % 4], chosen="", rejected="",
    )
    for i in range(10)
]  # fmt: skip
METHODS = [DpoMethod(learning_rate=1e-3, batch_size=4), IpoMethod(learning_rate=1e-3, batch_size=4)]


def training(
    grpo: GrpoConfig | None = None,
    *,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
    should_end: Callable[[], bool] = lambda: False,
    checkpoints: Checkpoints | None = None,
) -> Training:
    """Micro-batches of two pairs."""
    grpo = grpo or GrpoConfig(precision="float32", micro_batch_tokens=32)
    return Training(grpo, 0, 1, on_step, should_stop, should_end, checkpoints)


def train(method: Method, settings: Training, model: LlamaForCausalLM | None = None) -> LlamaForCausalLM:
    model = model or build_tiny_model(build_tiny_tokenizer())
    train_on_pairs(model, build_tiny_tokenizer(), PAIRS, method, settings)
    return model


def logprob(model: LlamaForCausalLM, prompt: list[int], ids: list[int]) -> float:
    """log p(ids | prompt) in float64, one sequence alone."""
    with torch.no_grad():
        logits = copy.deepcopy(model).double()(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(dim=1).gather(1, torch.tensor(ids)[:, None]).sum())


def log_ratios(policy: LlamaForCausalLM, reference: LlamaForCausalLM, pair: TrainingPair) -> tuple[float, float]:
    chosen, rejected = (
        logprob(policy, pair.prompt_ids, ids) - logprob(reference, pair.prompt_ids, ids)
        for ids in (pair.chosen_ids, pair.rejected_ids)
    )
    return chosen, rejected


def written_out(method: Method, policy: LlamaForCausalLM, reference: LlamaForCausalLM, pair: TrainingPair) -> float:
    """Equation 7 of DPO's paper; equation 17 of IPO's with log ratios by token."""
    chosen, rejected = log_ratios(policy, reference, pair)
    if method.kind == "dpo":
        return math.log1p(math.exp(-method.beta * (chosen - rejected)))
    by_token = chosen / len(pair.chosen_ids) - rejected / len(pair.rejected_ids)
    return (by_token - 1 / (2 * method.beta)) ** 2


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
@pytest.mark.parametrize(("update", "epochs"), [(2, 1), (4, 2)])
def test_the_loss_is_that_of_the_paper_with_the_policy_that_came_in_as_reference(
    method: Method, update: int, epochs: int
) -> None:
    """The loss of an update, of four pairs in the order of training, is computed from the weights after the one before."""
    seen: dict[int, dict[str, float]] = {}
    model, reference = (build_tiny_model(build_tiny_tokenizer()) for _ in range(2))
    before: list[LlamaForCausalLM] = []

    def on_step(step: int, metrics: dict[str, float]) -> None:
        seen[step] = metrics
        if step == update - 1:
            weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
            before.append(build_tiny_model(build_tiny_tokenizer()))
            before[0].load_state_dict(weights)

    settings = training(on_step=on_step)
    train(method.model_copy(update={"epochs": epochs}), settings, model)
    its = [PAIRS[i] for i in in_epochs(len(PAIRS), epochs, settings)[4 * update - 4 : 4 * update]]
    losses = [written_out(method, before[0], reference, pair) for pair in its]
    margins = [chosen - rejected for chosen, rejected in (log_ratios(before[0], reference, pair) for pair in its)]
    assert seen[1]["policy/loss"] == pytest.approx(
        {"dpo": math.log(2), "ipo": 25.0}[method.kind], rel=1e-6
    )  # (1 / 0.2)^2
    assert seen[update]["policy/loss"] == pytest.approx(sum(losses) / 4, rel=2e-5)
    assert seen[update]["dpo/margin"] == pytest.approx(0.1 * sum(margins) / 4, rel=1e-3)
    assert seen[update]["dpo/accuracy"] == sum(margin > 0 for margin in margins) / 4
    assert len(seen) == math.ceil(10 * epochs / 4)


def test_the_reference_reads_each_pair_once_however_many_epochs_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = PairTrainer.compute_ref_log_probs

    def counted(self: PairTrainer, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        read.append(len(inputs["input_ids"]) // 2)
        return plain(self, model, inputs)

    monkeypatch.setattr(PairTrainer, "compute_ref_log_probs", counted)
    train(DpoMethod(epochs=3, batch_size=4), training())
    assert sum(read) == len(PAIRS)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
def test_better_responses_become_likelier_than_worse_ones(method: Method) -> None:
    reference = build_tiny_model(build_tiny_tokenizer())
    before = {name: weight.clone() for name, weight in reference.named_parameters()}
    model = train(method.model_copy(update={"epochs": 3}), training())
    margins = [chosen - rejected for chosen, rejected in (log_ratios(model, reference, pair) for pair in PAIRS)]
    assert min(margins) > 0
    assert all(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())


@pytest.mark.parametrize(("batch_size", "tokens"), [(5, (10, 1000)), (16, (10, 60, 1000))])
def test_micro_batches_change_nothing(batch_size: int, tokens: tuple[int, ...]) -> None:
    """Also where the rows of the last update are no multiple of what goes through the model together."""
    one, *others = (
        train(
            METHODS[0].model_copy(update={"batch_size": batch_size}),
            training(GrpoConfig(precision="float32", micro_batch_tokens=n)),
        )
        for n in tokens
    )
    for name, weight in one.named_parameters():
        for many in others:
            torch.testing.assert_close(weight, many.get_parameter(name), rtol=0, atol=2e-5)


def test_schedule_and_learning_rate_are_those_of_the_configuration() -> None:
    rates: list[float] = []
    grpo = GrpoConfig(precision="float32", schedule="linear", warmup_updates=2, micro_batch_tokens=64)
    method = DpoMethod(learning_rate=8e-4, batch_size=2, min_pairs=1)
    train(method, training(grpo, on_step=lambda step, metrics: rates.append(metrics["policy/learning_rate"])))
    assert rates == pytest.approx([4e-4, 8e-4, 8e-4, 8e-4 * 2 / 3, 8e-4 / 3])  # 1/2, 1, then 3/3, 2/3, 1/3 of the peak


def test_of_an_adapter_alone_the_weights_move() -> None:
    model = build_tiny_model(build_tiny_tokenizer())
    given = {name: weight.clone() for name, weight in model.named_parameters()}
    grpo = GrpoConfig(precision="float32", lora=LoraConfig(rank=2), micro_batch_tokens=64)
    adapter = Adapter(model, grpo.lora or LoraConfig(), seed=0)
    train(METHODS[0], training(grpo), model)
    kept = {name.replace(".base_layer", ""): weight for name, weight in model.named_parameters() if "lora_" not in name}
    assert all(torch.equal(weight, given[name]) for name, weight in kept.items())
    merged = adapter.merge()
    assert not torch.equal(
        merged.get_parameter("model.layers.0.mlp.up_proj.weight"), given["model.layers.0.mlp.up_proj.weight"]
    )


def test_an_adapter_on_the_output_layer_is_refused_since_the_loss_would_pass_it_by() -> None:
    model = build_tiny_model(build_tiny_tokenizer())
    lora = LoraConfig(rank=2, target_modules=["lm_head"])
    Adapter(model, lora, seed=0)
    with pytest.raises(ConfigError, match=r"target_modules adapts the output layer.*leave it out"):
        train(METHODS[0], training(GrpoConfig(lora=lora)), model)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_training_that_goes_on_ends_as_if_it_had_not_been(
    tmp_path: Path, method: Method, precision: str
) -> None:
    grpo = GrpoConfig.model_validate(
        {"precision": precision, "schedule": "cosine", "micro_batch_tokens": 32, "weight_decay": 0.1}
    )
    method = method.model_copy(update={"epochs": 2})  # five updates
    whole = train(method, training(grpo))
    seen: list[int] = []

    def attempt(stop_after: int) -> LlamaForCausalLM:
        checkpoints = Checkpoints(tmp_path, fingerprint="work", every=100, keep=1, warn=pytest.fail)
        return train(
            method,
            training(
                grpo,
                on_step=lambda step, _: seen.append(step),
                should_stop=lambda: bool(seen) and seen[-1] + 1 >= stop_after,  # asked before a step is told
                checkpoints=checkpoints,
            ),
        )

    with pytest.raises(StageStopped, match="after step 3 of 5"):
        attempt(3)
    resumed = attempt(1000)
    assert seen == [1, 2, 3, 4, 5]
    assert all(torch.equal(weight, resumed.get_parameter(name)) for name, weight in whole.named_parameters())


def test_training_ends_with_the_step_whose_metrics_ask_for_it() -> None:
    seen: list[int] = []
    settings = training(on_step=lambda step, _: seen.append(step), should_end=lambda: seen[-1:] == [2])
    train(METHODS[0], settings)
    assert seen == [1, 2]


def test_a_loss_that_is_not_finite_ends_training() -> None:
    model = build_tiny_model(build_tiny_tokenizer())
    with torch.no_grad():
        model.lm_head.weight[0, 0] = math.nan
    with pytest.raises(TrainingDiverged, match="policy/loss is nan at step 1"):
        train(METHODS[0], training(), model)
