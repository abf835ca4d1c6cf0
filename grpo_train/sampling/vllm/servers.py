"""Samples responses from vLLM servers, which hold the policy whose weights they were last given.

The trainer imports nothing of vLLM: it speaks HTTP. Each response is a request of its own, with a seed from problem and
index, so what is drawn depends neither on the batch nor on the server, up to rounding: a server computes a row a little
differently beside other rows. Its arithmetic differs from the trainer's too, so its responses are slightly off-policy,
which importance weights correct for (`grpo_train.updating.loss`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from transformers import PreTrainedTokenizerBase

from configs.errors import ServerAway, ServerDiffers, ServerRefused, StageStopped
from configs.records import Completion, Problem
from configs.schema.grpo import VllmConfig
from grpo_train.sampling.asked import Asked, OnGroup
from grpo_train.sampling.rows import Sampling
from grpo_train.sampling.vllm.asking import Ask, Written, ask
from grpo_train.sampling.vllm.post import LOOK_EVERY_S, Holding, Post, connect
from grpo_train.sampling.vllm.spreading import responses
from reward_training.waiting import Daemons, Quiet

STOPPED = "stopped while waiting for a vLLM server"

UNTOLD = (ServerAway, ServerRefused, ServerDiffers, StageStopped, CancelledError)


@dataclass(frozen=True)
class Order:
    """A group of responses for each of some problems, to be written by servers."""

    asked: Asked
    sizes: Sequence[int]
    """of each problem's group"""
    asks: list[Ask]
    at_once: int
    """about as many requests are under way at the same time"""


class PolicyServers:
    """All servers of a configuration."""

    def __init__(
        self,
        config: VllmConfig,
        tokenizer: PreTrainedTokenizerBase,
        stop_ids: set[int],
        *,
        gives: bool = True,
        warn: Callable[[str], None],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """`gives`: whether this process gives weights to the servers; of several ranks the main one does.

        `should_stop`: whether to end, with StageStopped, once the servers give nothing any more.
        """
        self._tokenizer, self._stop_ids, self._config = tokenizer, stop_ids, config
        self._quiet = Quiet(should_stop)
        self._threads = Daemons(len(config.urls))
        self.gives = gives
        self.posts = [Post(connect(url), config, gives=gives, warn=warn) for url in config.urls]
        self.holding: Holding | None = None
        self._is_closed = threading.Event()
        self.handing_over = threading.Lock()
        """to be held while what `holding` gives is about to change"""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed.set()
        self._threads.close()
        for post in self.posts:
            post.server.close()

    def hold(self, holding: Holding) -> None:
        """Give weights to all servers, if this process does that; those that are away get them when they are back.

        Raises:
            ServerAway: none was there for `patience_s`.
            ServerRefused, ServerDiffers: one does not take them, or answers as if it had others.
            StageStopped: `should_stop()` was true, and none has been there for a while.
        """
        self.holding = holding
        self._quiet.broken()
        for post in self.posts:
            post.want(holding)
        while self.gives and not self._are_right(holding):
            self._quiet.refuse_long(STOPPED)
            time.sleep(LOOK_EVERY_S)

    def keep(self) -> None:
        """From now on give weights to servers that lost them also while this process does something else: other ranks,
        which give none, wait for that."""
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        while not self._is_closed.wait(LOOK_EVERY_S):
            with self.handing_over, suppress(*UNTOLD):  # whoever asks is told
                if self.holding is not None:
                    self._are_right(self.holding)

    def _are_right(self, holding: Holding) -> bool:
        """Whether one server at least is right, after looking at all of them at the same time."""
        looks = [self._threads.submit(partial(post.is_right, holding)) for post in self.posts]
        self._quiet.wait_for(looks, STOPPED)
        there = [look for look in looks if not isinstance(look.exception(), ServerAway)]
        are_right = [look.result() for look in there or looks]
        return any(are_right)

    def metrics(self) -> dict[str, float]:
        """How far the servers' log-probabilities of known tokens are from the trainer's, and how often one was away."""
        assert self.holding is not None
        mismatches = list(self.holding.mismatches.values())
        waits = sum(post.patience.num_waits for post in self.posts)
        return {"vllm/waits": float(waits)} | ({"vllm/mismatch": max(mismatches)} if mismatches else {})

    def sample(
        self,
        problems: Sequence[Problem],
        sampling: Sampling,
        *,
        seed: int,
        policy_id: str,
        step: int = 0,
        group_sizes: Sequence[int] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: Callable[[int], None] = lambda num_rows: None,
        on_group: OnGroup = lambda i, problem, completions: None,
    ) -> list[Completion]:
        """Sample as `grpo_train.sampling.generation.sample` does; with top_p or top_k, log-probabilities are those within
        what was left to draw from.

        Raises:
            StageStopped: `should_stop()` was true; or that of all, and no server gave anything for a while.
            ServerAway, ServerRefused, ServerDiffers: as `spreading.responses`.
        """
        order = self.order(problems, sampling, seed=seed, policy_id=policy_id, step=step, group_sizes=group_sizes)
        completions: list[list[Completion]] = [[] for _ in problems]
        for i, group in self.write(order, should_stop=should_stop, on_progress=on_progress):
            completions[i] = self.completions(order, i, group)
            on_group(i, problems[i], completions[i])
        return [completion for group in completions for completion in group]

    def order(
        self,
        problems: Sequence[Problem],
        sampling: Sampling,
        *,
        seed: int,
        policy_id: str,
        step: int = 0,
        group_sizes: Sequence[int] | None = None,
    ) -> Order:
        """What `sample` asks for."""
        asked = Asked(self._tokenizer, problems, sampling, policy_id=policy_id, step=step, seed=seed)
        sizes = group_sizes if group_sizes is not None else [sampling.group_size] * len(problems)
        asks = [
            ask(i, index, asked.prompts[i], sampling, stop_ids=self._stop_ids, seed=seed, problem_key=problem.key)
            for i, (problem, size) in enumerate(zip(problems, sizes, strict=True))
            for index in range(size)
        ]
        return Order(asked, sizes, asks, sampling.max_rows)

    def write(
        self,
        order: Order,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: Callable[[int], None] = lambda num_rows: None,
    ) -> Iterator[tuple[int, list[Written]]]:
        """The position and the responses of each group, as they become whole; raises as `sample`. It needs neither model nor
        tokenizer, so another thread may do it."""
        assert self.holding is not None, "hold() comes first"
        groups: list[dict[int, Written]] = [{} for _ in order.sizes]

        def on_wait() -> None:
            if should_stop():
                raise StageStopped("stopped while sampling")
            self._quiet.refuse_long(STOPPED)

        for one, response in responses(self.posts, self.holding, order.asks, at_once=order.at_once, on_wait=on_wait):
            self._quiet.broken()
            i, group = one.problem, groups[one.problem]
            group[one.index] = response
            on_progress(1)
            if len(group) == order.sizes[i]:
                yield i, [group[index] for index in range(len(group))]

    def completions(self, order: Order, i: int, group: Sequence[Written]) -> list[Completion]:
        """The records of the responses to the problem at position `i`."""
        return [
            order.asked.completion(i, index, row.token_ids, row.logprobs, self._finish_reason(row))
            for index, row in enumerate(group)
        ]

    def _finish_reason(self, response: Written) -> str:
        return "stop" if response.token_ids[-1] in self._stop_ids else "length"
