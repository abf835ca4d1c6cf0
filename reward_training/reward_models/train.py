"""Trains reward models on preference pairs: Bradley-Terry (InstructGPT, arXiv 2203.02155, equation 1).

The loss and the loop are those of TRL's RewardTrainer. Our part is its input: conversations are rendered and tokenized
as in scoring, the pairs of a problem are next to one another in the training order (the paper's section 3.5: the model
overfits if they are shuffled apart), and a common prefix of conversations is computed once (`packing`). Weights stay
float32; products are bfloat16 if the hardware has it. Differences to the paper: every pair has the same weight in the
loss, not every problem, and scores are normalised on anchors after training (`calibration.json`).

    train_reward_model(pairs, base=Path("models/x"), out_dir=Path("reward"), config=config, seed=0,
                       on_step=lambda step, metrics: print(step, metrics), should_stop=lambda: False)
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl.trainer.reward_config import RewardConfig

from configs.disk.checkpoints import Checkpoints
from configs.errors import ConfigError, StageStopped
from configs.records import PreferencePair, TemplateSettings
from configs.schema.reward_models import TrainedRewardModel
from configs.seeds import rng_for, seed_for
from reward_training.reward_models.adapter import add_adapter, merged
from reward_training.reward_models.backbone import BACKBONE, load_backbone, load_tokenizer, set_pad_token
from reward_training.reward_models.distinct import distinct_pairs, too_long
from reward_training.reward_models.scores import (
    RewardModelScorer,
    conversation_layout,
    conversation_scores,
    save_calibration,
)
from reward_training.reward_models.trainer import Hooks, PackedRewardTrainer
from reward_training.transformer.attention.kernels import fit_attention
from reward_training.transformer.chat_template import PLAIN
from reward_training.transformer.loading.vocabulary import refuse_larger_tokenizer
from reward_training.transformer.packing import LayoutOf, Packed, hidden_size, packed
from reward_training.transformer.precision import autocast, pick_device
from reward_training.transformer.quiet import quiet_transformers
from reward_training.transformer.rendering import conversation_text
from reward_training.transformer.saving import try_saving

MAX_GRAD_NORM = 1.0
TOKENS_PER_PASS = {"cpu": 4096, "cuda": 16384}
"""largest number of tokens in a forward and backward pass, counted without prefix sharing; bounds the memory"""
CHECKPOINTING_FROM = 1_000_000_000
"""number of parameters from which on activation checkpointing is used, to save memory"""
NUM_ANCHORS = 64
"""anchor pairs on whose responses the scores are normalised"""


def train_reward_model(
    pairs: Sequence[PreferencePair],
    *,
    base: Path,
    out_dir: Path,
    config: TrainedRewardModel,
    seed: int,
    on_step: Callable[[int, dict[str, float]], None],
    should_stop: Callable[[], bool],
    checkpoints: Checkpoints | None = None,
    anchors: Sequence[PreferencePair] | None = None,
    template: TemplateSettings = PLAIN,
) -> None:
    """Train a reward model on `pairs` and save it to `out_dir`.

    `base` is a causal language model or an earlier reward model. With `checkpoints`, training continues from the newest
    one.

    `on_step(step, metrics)` is called after each update, with steps from 1 and the metrics named in METRICS. Pairs with
    a conversation over `max_length` tokens are left out, and those that the base's chat template, with the run's
    `template` settings, renders alike or refuses. Scores are normalised to mean 0
    and standard deviation 1 on the responses of the first NUM_ANCHORS `anchors` that fit (by default `pairs`). With the
    same anchors in every round, a reward means the same in every round.

    Raises:
        ConfigError: no pair fits or differs, the base does not load, or the model could not be saved.
        StageStopped: `should_stop` returned True at a step boundary. A checkpoint was saved there if `checkpoints` is
            given; no model is saved.
        TrainingDiverged: loss or gradient became NaN or infinite; nothing is saved.
    """
    device = pick_device()
    with quiet_transformers():
        tokenizer = load_tokenizer(base, template)
        rows = _plan(_rows(tokenizer, pairs, config.max_length), config.epochs, seed)
        longest = max(len(ids) for row in rows for ids in (row.chosen_ids, row.rejected_ids))
        model = load_backbone(base, seed)
        refuse_larger_tokenizer(model, tokenizer, BACKBONE)
        set_pad_token(model, tokenizer, rows[0].chosen_ids[-1])
        try_saving(model, tokenizer, out_dir)
        adapter = add_adapter(model, config.lora, seed) if config.lora else None
        hooks = Hooks(on_step, should_stop, checkpoints)
        _fit(model, tokenizer, rows, longest, config=config, seed=seed, hooks=hooks, device=device)
        if adapter is not None:
            model = merged(adapter)
        model.save_pretrained(str(out_dir))
        tokenizer.save_pretrained(str(out_dir))
        del model
        _calibrate(out_dir, tokenizer, anchors or pairs, config.max_length, template)


# ---- data -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """A pair as token ids."""

    problem_key: str
    chosen_ids: list[int]
    rejected_ids: list[int]


def _rows(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair], max_length: int) -> list[_Row]:
    """The pairs that differ as the template renders them, with at most `max_length` tokens in both conversations.

    Raises:
        ConfigError: there are none.
    """
    found = distinct_pairs(tokenizer, pairs)
    keys = [pair.problem_key for pair in found.pairs]
    rows = [
        _Row(key, ids.chosen, ids.rejected) for key, ids in zip(keys, found.ids, strict=True) if ids.fits(max_length)
    ]
    if not rows and found.ids:
        raise ConfigError(too_long(found.ids, max_length, pairs[0].objective))
    if not rows:
        raise ConfigError(f"none of {len(pairs)} pairs can be learned from: {found.told}")
    return rows


def _plan(rows: list[_Row], epochs: int, seed: int) -> list[_Row]:
    """The pairs of all epochs in order: each epoch shuffles the problems, and a problem's pairs stay together."""
    by_problem: dict[str, list[_Row]] = {}
    for row in rows:
        by_problem.setdefault(row.problem_key, []).append(row)
    problems = list(by_problem.values())
    orders = [rng_for(seed, "reward_model_order", index=epoch).permutation(len(problems)) for epoch in range(epochs)]
    return [row for order in orders for i in order for row in problems[i]]


def micro_batch_size(batch_size: int, longest: int, max_tokens: int) -> int:
    """Pairs per forward and backward pass: the largest divisor of the batch size within `max_tokens`, at least 1."""
    divisors = [size for size in range(1, batch_size + 1) if batch_size % size == 0]
    return max(size for size in divisors if size == 1 or 2 * longest * size <= max_tokens)


# ---- training -------------------------------------------------------------------------------------------------------


def _fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[_Row],
    longest: int,
    *,
    config: TrainedRewardModel,
    seed: int,
    hooks: Hooks,
    device: torch.device,
) -> None:
    """Train `model` in place."""
    micro = micro_batch_size(config.batch_size, longest, TOKENS_PER_PASS[device.type])
    forward = model.forward
    with tempfile.TemporaryDirectory() as scratch:
        trainer = PackedRewardTrainer(
            model=model,
            args=_arguments(config, micro, seed, scratch, model.num_parameters(), device),
            data_collator=_Collator(hidden_size(model), conversation_layout(model)),
            train_dataset=Dataset.from_list([vars(row) for row in rows]),
            processing_class=tokenizer,
            callbacks=[hooks],
        )
        trainer.pop_callback(PrinterCallback)
        model.forward = functools.partial(_packed_forward, model, forward)
        trainer.checkpoints = hooks.checkpoints
        try:
            trainer.train(resume_from_checkpoint=trainer.newest_checkpoint())
        finally:
            model.forward = forward
    if hooks.stopped_at is not None:
        raise StageStopped(f"reward model stopped after step {hooks.stopped_at}")


def _arguments(
    config: TrainedRewardModel,
    micro: int,
    seed: int,
    scratch: str,
    num_parameters: int,
    device: torch.device,
) -> RewardConfig:
    """TRL's settings. One TRL epoch covers all of ours (`_plan`), so that an update may span two of our epochs."""
    return RewardConfig(
        output_dir=scratch,
        num_train_epochs=1,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=config.batch_size // micro,
        train_sampling_strategy="sequential",
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0,  # a warm-up starts at learning rate 0 and wastes one of few updates
        max_grad_norm=MAX_GRAD_NORM,
        weight_decay=0.0,
        max_length=None,
        remove_unused_columns=False,
        activation_checkpointing=num_parameters >= CHECKPOINTING_FROM,
        gradient_checkpointing=num_parameters >= CHECKPOINTING_FROM,  # its old name, which TRL sets
        bf16=False,  # _packed_forward applies autocast, even on hardware where TRL refuses bf16
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        seed=seed_for(seed, "reward_model") % 2**32,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # Hooks decides when
        report_to="none",
        disable_tqdm=True,
    )


@dataclass(frozen=True)
class _Collator:
    """Packs pairs into one batch: all chosen conversations, then all rejected ones."""

    width: int
    layout_of: LayoutOf

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sequences = [row["chosen_ids"] for row in rows] + [row["rejected_ids"] for row in rows]
        return dict(vars(packed(sequences, width=self.width, layout_of=self.layout_of)))


def _packed_forward(
    model: PreTrainedModel, forward: Callable[..., Any], use_cache: bool = False, **inputs: torch.Tensor
) -> SimpleNamespace:
    """Replaces the model's forward in TRL's loss; `.logits` are (2P, 1) float32 scores, chosen conversations first."""
    batch = Packed(**inputs)
    fit_attention(model, batch.input_ids.shape[1], batch.attention_mask)
    with autocast(batch.input_ids.device):
        return SimpleNamespace(logits=conversation_scores(model, batch, forward))


def _calibrate(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    anchors: Sequence[PreferencePair],
    max_length: int,
    template: TemplateSettings,
) -> None:
    """Save mean and standard deviation of the raw scores on the first NUM_ANCHORS fitting anchors, beside the model."""
    found = distinct_pairs(tokenizer, anchors)
    used = [pair for pair, ids in zip(found.pairs, found.ids, strict=True) if ids.fits(max_length)][:NUM_ANCHORS]
    with RewardModelScorer(folder, max_length=max_length, template=template) as scorer:
        texts = [(pair, text) for pair in used for text in (pair.chosen, pair.rejected)]
        conversations = [conversation_text(scorer.tokenizer, pair.prompt, text) for pair, text in texts]
        save_calibration(folder, scorer.scores(conversations))
