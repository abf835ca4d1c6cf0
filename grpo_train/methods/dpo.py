"""DPO (Direct Preference Optimization, arXiv 2305.18290, equation 7), and IPO (arXiv 2310.12036, equation 17).

Of the champion's responses to a problem, which the round before sampled and scored, the one with the highest weighted sum of
rewards is preferred to the one with the lowest. With the log ratio of a response y, h(y) = log p(y) - log p_ref(y) summed
over its tokens, and a pair of a better response c and a worse one r, the losses are

    dpo: - log sigmoid(beta (h(c) - h(r)))
    ipo: (h(c) / |c| - h(r) / |r| - 1 / (2 beta))^2

The reference is the policy with which the round begins. Its log-probabilities are computed before the first update, so one
model is held. The losses and the loop are those of TRL's DPOTrainer. Differences to the papers: responses are sampled and
scored by rewards instead of judged by people; log-probabilities are those at temperature 1, whatever the samples were drawn
at; IPO's log ratios are divided by the numbers of tokens, as TRL does it (its comment names the authors' consent); without
that a pair of long responses would outweigh many short ones.

    method: {kind: dpo, beta: 0.1, learning_rate: 1.0e-6}
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from configs.records import Completion, Record
from configs.schema.methods.method import PairMethod
from grpo_train.methods.given_samples import Training, fit, in_epochs, num_updates, settings
from reward_training.reward_models.train import micro_batch_size
from reward_training.reward_models.trainer import MeanOverPairs

LOSSES = {"dpo": "sigmoid", "ipo": "ipo"}
"""{method: TRL's name of its loss}"""
METRICS = {
    "loss": "policy/loss",
    "grad_norm": "policy/grad_norm",
    "learning_rate": "policy/learning_rate",
    "rewards/accuracies": "dpo/accuracy",
    "rewards/margins": "dpo/margin",
    "rewards/chosen": "dpo/chosen",
    "rewards/rejected": "dpo/rejected",
}
"""TRL's name of each metric, and ours"""


# ---- pairs ----------------------------------------------------------------------------------------------------------


class TrainingPair(Record):
    """A better and a worse response to one problem, as the policy wrote them."""

    problem_key: str
    indices: tuple[int, int]
    """positions of the better and of the worse response in their group"""
    margin: float
    """weighted sum of rewards of the better response minus that of the worse one, over `min_margin`"""
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class PairsFound:
    """The pairs, in the order of the problems, and what made none."""

    pairs: list[TrainingPair]
    dead_keys: set[str]
    """problems whose responses make no pair: equal totals, a margin that is too small, or fewer than two that were scored"""
    num_unscored: int
    """responses that a reward could not score; they are in no pair"""

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "pairs/made": float(len(self.pairs)),
            "pairs/dead_groups": float(len(self.dead_keys)),
            "pairs/unscored": float(self.num_unscored),
        }


def find_pairs(
    completions: Sequence[Completion], totals: Sequence[float | None], *, per_problem: int, min_margin: float
) -> PairsFound:
    """The pairs of each problem's responses: best against worst, second best against second worst, and so on.

    Args:
        totals: weighted sum of rewards of each completion; None where it could not be scored.
        min_margin: the better one's total is over the worse one's by more than this.
    """
    groups: dict[str, list[tuple[float, Completion]]] = {}
    for completion, total in zip(completions, totals, strict=True):
        group = groups.setdefault(completion.problem_key, [])
        if total is not None and all(completion.token_ids != other.token_ids for _, other in group):
            group.append((total, completion))
    found = {key: _pairs_of(group, per_problem, min_margin) for key, group in groups.items()}
    return PairsFound(
        pairs=[pair for pairs in found.values() for pair in pairs],
        dead_keys={key for key, pairs in found.items() if not pairs},
        num_unscored=sum(total is None for total in totals),
    )


def _pairs_of(group: list[tuple[float, Completion]], per_problem: int, min_margin: float) -> list[TrainingPair]:
    ranked = sorted(group, key=lambda scored: -scored[0])  # stable: of equal totals the earlier response is better
    meeting = list(zip(ranked, reversed(ranked), strict=True))[: min(per_problem, len(ranked) // 2)]
    return [
        _pair(better, worse, best - worst) for (best, better), (worst, worse) in meeting if best - worst > min_margin
    ]


def _pair(better: Completion, worse: Completion, margin: float) -> TrainingPair:
    return TrainingPair(
        problem_key=better.problem_key,
        indices=(better.index, worse.index),
        margin=margin,
        prompt_ids=better.prompt_ids,
        chosen_ids=better.token_ids,
        rejected_ids=worse.token_ids,
        chosen=better.text,
        rejected=worse.text,
    )


# ---- training -------------------------------------------------------------------------------------------------------


def train_on_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[TrainingPair],
    method: PairMethod,
    training: Training,
) -> int:
    """Train `model` in place; returns the number of updates.

    Raises:
        StageStopped: it was asked to stop at a step boundary; a checkpoint was saved there, given `training.checkpoints`.
        TrainingDiverged: loss or gradient became NaN or infinite.
    """
    rows = [_row(pairs[i]) for i in in_epochs(len(pairs), method.epochs, training)]
    longest = max(len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs)
    micro = micro_batch_size(method.batch_size, longest, training.grpo.micro_batch_tokens)
    common = settings(training, model, learning_rate=method.learning_rate, batch_size=method.batch_size, micro=micro)

    def make(output_dir: str, **given: Any) -> PairTrainer:
        args = DPOConfig(
            output_dir=output_dir,
            **common,
            beta=method.beta,
            loss_type=[LOSSES[method.kind]],
            precompute_ref_log_probs=True,
            max_length=None,
            router_aux_loss_coef=0.0,
        )
        return PairTrainer(
            dtype=training.dtype(model),
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            **given,
        )

    total = num_updates(len(rows), method.batch_size)
    return fit(make, model, training, METRICS, learning_rate=method.learning_rate, num_updates=total)


def _row(pair: TrainingPair) -> dict[str, list[int]]:
    return {"prompt_ids": pair.prompt_ids, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids}


class PairTrainer(MeanOverPairs, DPOTrainer):
    """TRL's trainer of preference pairs in our precision, with the reference's log-probabilities as columns of the rows."""

    COUNTED = "input_ids"
    MEANS = tuple(name for name in METRICS if name.startswith("rewards/"))

    def __init__(self, *, dtype: torch.dtype | None, **given: Any) -> None:
        self.dtype = dtype
        super().__init__(**given)

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        with self._lowered():
            return super().compute_loss(model, inputs, *args, **kwargs)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(P,) log-probabilities of the better and of the worse responses under the model, summed over their tokens."""
        with self._lowered(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # TRL asks for it
            chosen, rejected = super().compute_ref_log_probs(model, inputs)  # type: ignore[no-untyped-call]
        return chosen, rejected

    def _lowered(self) -> torch.autocast:
        return torch.autocast(self.args.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """The rows with the log-probabilities under the model before its first update; TRL's own way keeps them in a file.

        Each pair is computed once, however many epochs it is a row of.
        """
        rows = [dataset[i] for i in range(len(dataset))]
        distinct = {_tokens(row): row for row in rows}
        keys = list(distinct)
        known: dict[tuple[tuple[int, ...], ...], tuple[float, float]] = {}
        for start in range(0, len(keys), batch_size):
            some = keys[start : start + batch_size]
            inputs = self._prepare_inputs(self.data_collator([distinct[key] for key in some]))
            of_both = (logps.tolist() for logps in self.compute_ref_log_probs(self.model, inputs))
            known |= zip(some, zip(*of_both, strict=True), strict=True)
        better, worse = zip(*(known[_tokens(row)] for row in rows), strict=True)
        return dataset.add_column("ref_chosen_logps", better).add_column("ref_rejected_logps", worse)


def _tokens(row: dict[str, list[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(ids) for ids in row.values())
