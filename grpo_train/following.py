"""Gives the learner's weights to vLLM servers before each step, so that they sample from the policy that is trained.

All ranks come along: a sharded model is gathered on all of them, and the known tokens by which trainer and servers are
compared are scored by all. The main rank alone gives weights.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from configs.records import Policy, Problem
from configs.schema.grpo import VllmConfig
from grpo_train.ahead import Ahead
from grpo_train.sampling.vllm.known import KnownToken, known_tokens, rescored
from grpo_train.sampling.vllm.post import Holding
from grpo_train.sampling.vllm.servers import PolicyServers
from grpo_train.sampling.vllm.weights import transport
from grpo_train.updating.learner import Learner
from reward_training.transformer.rendering import encode_prompt
from reward_training.transformer.turn_ends import stop_token_ids


@dataclass(frozen=True)
class Serving:
    """What following servers needs beside the configuration."""

    folder: Path
    """where weights are written, unless the configuration names a folder"""
    base: Policy
    """on which an adapter is trained"""
    warn: Callable[[str], None]
    should_stop: Callable[[], bool] = lambda: False


class Follower:
    """The servers, and which of the learner's weights they have."""

    def __init__(
        self, learner: Learner, tokenizer: PreTrainedTokenizerBase, config: VllmConfig, serving: Serving
    ) -> None:
        self._learner, self._tokenizer, self._config = learner, tokenizer, config
        is_main = learner.ranks.is_main
        self.servers = PolicyServers(
            config,
            tokenizer,
            stop_token_ids(learner.actor, tokenizer),
            gives=is_main,
            warn=serving.warn,
            should_stop=serving.should_stop,
        )
        self.ahead = Ahead(self.servers, learner.ranks) if config.max_staleness else None
        """the batch of the next step; None if none is written ahead"""
        self._transport = transport(config, serving.folder, base=serving.base, is_main=is_main)
        self._base = serving.base
        # another run, or an earlier attempt of this one, may have had other weights under a step's name
        self._attempt = learner.ranks.from_main(uuid.uuid4().hex[:8])
        self._policy_id = ""
        self._known: list[KnownToken] = []
        if is_main and learner.ranks.count > 1:
            self.servers.keep()

    def follow(self, policy_id: str, problems: Sequence[Problem]) -> None:
        """Give the learner's weights, those of `policy_id`, unless that was done; all ranks call it.

        The first problems that come along have the known tokens.

        Raises:
            ServerAway: no server was there for `patience_s`.
            ServerRefused, ServerDiffers: one does not take them, or answers as if it had others.
        """
        if policy_id == self._policy_id:
            return
        logprobs_of = self._learner.logprobs_of
        if self._known:
            self._known = rescored(self._known, logprobs_of)
        else:
            self._known = known_tokens([encode_prompt(self._tokenizer, each) for each in problems], logprobs_of)
        version = f"{policy_id}/{self._attempt}"
        with self.servers.handing_over:
            self._transport.prepare(self._learner.actor, version)
            adapter = self._transport.model_name
            holding = Holding(
                version=version if adapter is None else self._base.id,
                give=self._transport.give,
                adapter=adapter,
                known=self._known,
            )
            self._learner.ranks.wait()
            self.servers.hold(holding)
        self._learner.ranks.wait()
        self._policy_id = policy_id

    def known(self) -> list[KnownToken]:
        """The known tokens as the learner's weights score them now; empty before the first step. All ranks call it."""
        return rescored(self._known, self._learner.logprobs_of)


@contextmanager
def following(
    learner: Learner, tokenizer: PreTrainedTokenizerBase, config: VllmConfig | None, serving: Serving | None
) -> Iterator[Follower | None]:
    """A follower whose connections, and what is written ahead, end with the context; None without servers."""
    if config is None:
        yield None
        return
    assert serving is not None, "servers cannot be given weights without it"
    follower = Follower(learner, tokenizer, config, serving)
    with follower.servers, follower.ahead or nullcontext():
        yield follower
