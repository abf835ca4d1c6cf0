"""Computes advantages from scores as the configuration's method says (`methods/`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from configs.schema.config import Config
from grpo_train.groups import Groups, alike, applies_matrix, left_out, parts_matrix, without
from grpo_train.methods.method import Method
from grpo_train.sampling.decoding import Decoder
from grpo_train.updating.advantages import Advantages, Bools, Floats, Scored
from grpo_train.updating.step_advantages import add_steps, token_steps
from reward_training.rewards.sought import texts_sought
from reward_training.weighing import Weighing


class Credit:
    """Assigns an advantage to each response, and to each token where a reward scores single reasoning steps."""

    def __init__(
        self, config: Config, method: Method, objectives: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.config, self.method, self.objectives = config, method, list(objectives)
        self.decode = Decoder(tokenizer, texts_sought(config.rewards))
        per_step = [name for name in self.objectives if name in config.per_step_rewards]
        self.per_step = self.objectives.index(per_step[0]) if per_step else None
        """column of the objective that scores single steps; None where there is none"""

    def parts(self, groups: Groups) -> Floats:
        """(N, K) score under each objective, NaN where it could not score or does not apply."""
        return parts_matrix(groups.scores, self.objectives)

    def applies(self, groups: Groups) -> Bools:
        """(N, K) whether the objective applies to the response's problem."""
        return applies_matrix(groups.scores, self.objectives)

    def advantages(self, groups: Groups, weighing: Weighing) -> Advantages:
        """Advantages of the N responses; 0 for those that `left_out` leaves out."""
        grpo = self.config.grpo_config
        parts_nk = self.parts(groups)
        out_n = left_out(groups.completions, grpo)
        weights_k, floors_k2 = weighing.columns(self.objectives)
        scored = Scored(
            parts=without(parts_nk, out_n),
            weights=weights_k if self.per_step is None else _with_zero(weights_k, self.per_step),
            floors=floors_k2,
            group_size=grpo.group_size,
            alike=alike(self.applies(groups), weights_k, grpo.group_size),
            completions=groups.completions,
        )
        advantages = self.method.advantages(scored)
        if self.per_step is None:
            return advantages
        rows = zip(groups.completions, groups.scores, out_n, strict=True)
        return add_steps(
            advantages,
            [[] if is_out else token_steps(self.decode, completion, score) for completion, score, is_out in rows],
            [len(completion.token_ids) for completion in groups.completions],
            parts=parts_nk[:, self.per_step],
            column=self.per_step,
            weight=float(weights_k[self.per_step]),
            group_size=grpo.group_size,
            combination=self.config.combination,
        )


def _with_zero(weights: Floats, column: int) -> Floats:
    """(K,) weights with that of `column` set to 0."""
    return np.where(np.arange(len(weights)) == column, 0.0, weights)
