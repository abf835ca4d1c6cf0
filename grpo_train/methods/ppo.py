"""PPO (arXiv 1707.06347) as it is used on language models (arXiv 1909.08593): a value model says what to expect of each token.

A response is an episode: its tokens are the actions, the reward is the weighted sum of the scores and comes with the last
token, also where the response was cut at the length limit. With the value V_t before token t, V = 0 after the last, and
delta_t = r_t + gamma V_(t+1) - V_t, the advantage of a token is (generalised advantage estimation, arXiv 1506.02438,
equation 16; equations 11 and 12 of the PPO paper)

    A_t = sum over l of (gamma lambda)^l delta_(t+l)

With gamma = lambda = 1 that is the response's reward minus V_t. The value model learns the returns A_t + V_t
(`updating/critic.py`), the policy follows the clipped surrogate of `grpo_config.loss` (`dapo`: the mean over all tokens). A
group has no part in it: two responses to one problem are compared by what the value model expects of the problem.

`whiten` shifts and scales the advantages of a step to mean 0 and variance 1 over its tokens, as the code of
arXiv 1909.08593 does. Differences to that paper: the KL term is part of the loss (`grpo_config.kl_coefficient`) and not of
the reward, so that the values and the metrics of rewards are of the rewards alone; and the value model is a model of its
own, which begins anew in each round.

    method: {kind: ppo, value_model: taste}
"""

from __future__ import annotations

import numpy as np

from configs.schema.methods.method import PpoMethod
from grpo_train.methods.method import all_count
from grpo_train.updating.advantages import Advantages, Floats, Scored, ValueTargets
from grpo_train.updating.critic import Critic

VARIANCE_FLOOR = 1e-8
"""added to the variance by which advantages are whitened, as in the code of arXiv 1909.08593"""


class Ppo:
    """Advantages of single tokens by a value model; without one (before there is a training) all values are 0."""

    in_loss = staticmethod(all_count)

    def __init__(self, method: PpoMethod, critic: Critic | None) -> None:
        self.method, self.critic = method, critic

    def advantages(self, scored: Scored) -> Advantages:
        """Token advantages in `by_token`. A group is dead where none of its tokens has an advantage other than 0.

        `contributions` are each objective's weighted scores, less their mean over the step's responses: what the value model
        expects is known of the sum only.
        """
        weighted, rewards = scored.weighted()
        known = ~np.isnan(rewards)
        values = self._values(scored)
        raw = [
            token_advantages(reward, row, self.method.gamma, self.method.gae_lambda)
            for reward, row in zip(rewards, values, strict=True)
        ]
        by_token = _without_unknown(whitened(raw) if self.method.whiten else raw)
        moves = np.array([bool(row.any()) for row in by_token], dtype=np.bool_)
        mean = weighted[known].mean(axis=0) if known.any() else 0.0
        return Advantages(
            values=np.zeros(len(rewards)),
            rewards=rewards,
            dead=np.logical_not(moves.reshape(-1, scored.group_size).any(axis=1)),
            contributions=np.where(known[:, None], weighted - mean, 0.0),
            by_token=by_token,
            targets=ValueTargets(values, tuple(a + v for a, v in zip(raw, values, strict=True))),
        )

    def _values(self, scored: Scored) -> tuple[Floats, ...]:
        if self.critic is None:
            return tuple(np.zeros(len(completion.token_ids)) for completion in scored.completions)
        return tuple(self.critic.values(scored.completions))


def token_advantages(reward: float, values: Floats, gamma: float, gae_lambda: float) -> Floats:
    """(T,) advantages of the tokens of a response with (T,) `values` before them and `reward` at its end.

    >>> token_advantages(1.0, np.array([0.5, 0.25]), gamma=1.0, gae_lambda=1.0)
    array([0.5 , 0.75])
    """
    rewards = np.zeros_like(values)
    rewards[-1:] = reward
    deltas = rewards + gamma * np.append(values[1:], 0.0) - values
    advantages = np.zeros_like(values)
    later = 0.0
    for t in reversed(range(len(values))):
        later = deltas[t] + gamma * gae_lambda * later
        advantages[t] = later
    return advantages


def whitened(rows: list[Floats]) -> list[Floats]:
    """The rows with mean 0 and variance 1 over all their known numbers; all 0 where these are equal."""
    numbers = np.concatenate([np.empty(0), *rows])
    known = numbers[~np.isnan(numbers)]
    if not known.size or np.ptp(known) == 0.0:  # rounded, equal numbers may lie beside their mean
        return [np.where(np.isnan(row), row, 0.0) for row in rows]
    deviation = np.sqrt(known.var() + VARIANCE_FLOOR)
    return [(row - known.mean()) / deviation for row in rows]


def _without_unknown(rows: list[Floats]) -> tuple[Floats, ...]:
    """The rows with 0 for NaN: a response without any score moves nothing."""
    return tuple(np.nan_to_num(row, nan=0.0) for row in rows)
