"""Responses of the next step, which vLLM servers write while the trainer scores and learns from those of this step.

One step off-policy (Asynchronous RLHF, arXiv 2410.18252). With W_t the weights after step t, step t

    takes batch t
    gives the servers W_{t-1}
    lets them write batch t + 1
    scores batch t, and updates W_{t-1} to W_t

so that W_{t-1} writes the batch that moves W_t: staleness 1. W_0 writes the first batch, for which the trainer waits, and the
second. Importance weights correct for the step between them (`updating/loss.py`).

Only the requests are made in another thread: prompts are encoded and responses decoded in the main one, which alone uses
the tokenizer, and ranks gather there what each has asked for. A checkpoint waits for the batch and holds it, since those who
go on no longer have the weights that wrote it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from configs.records import Completion, Problem, Record
from grpo_train.sampling.vllm.asking import Written
from grpo_train.sampling.vllm.servers import Order, PolicyServers
from grpo_train.updating.ranks import Ranks
from reward_training.waiting import Daemons


class Batch(Record):
    """The responses of a step, not yet scored."""

    step: int
    problems: list[Problem]
    """as the step asks them"""
    groups: list[list[Completion]]
    """of each problem"""


@dataclass(frozen=True)
class _Writing:
    """A batch that is being written."""

    step: int
    problems: list[Problem]
    order: Order
    """this rank's share of it"""
    written: Future[tuple[list[list[Written]], float]]
    """the groups of that share, and the seconds that they took"""


class Ahead:
    """At most one batch: being written, or whole."""

    def __init__(self, servers: PolicyServers, ranks: Ranks) -> None:
        self._servers, self._ranks = servers, ranks
        self._thread = Daemons(1)
        self._is_closed = threading.Event()
        self._writing: _Writing | None = None
        self._batch: Batch | None = None
        self.overlapped_s = 0.0
        """seconds that the last whole batch was written while this rank did something else; 0 of a batch from a checkpoint"""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the writing; what nobody took is lost."""
        self._is_closed.set()
        if self._writing is not None:
            wait([self._writing.written])
        self._thread.close()

    @property
    def has_batch(self) -> bool:
        return self._batch is not None or self._writing is not None

    def start(self, step: int, problems: Sequence[Problem], order: Order) -> None:
        """Let the servers write the batch of `step`; `order` is this rank's share of it. All ranks call it."""
        assert not self.has_batch, "the batch before was not taken"
        written = self._thread.submit(lambda: self._write(order))
        self._writing = _Writing(step, list(problems), order, written)

    def take(self, step: int) -> Batch:
        """The batch of `step`, once it is whole. All ranks call it.

        Raises:
            StageStopped, ServerAway, ServerRefused, ServerDiffers: as `PolicyServers.sample`.
        """
        batch, self._batch = self._whole(), None
        assert batch is not None, "start() comes first"
        assert batch.step == step, f"the batch of step {batch.step} is there, not that of step {step}"
        return batch

    def state(self) -> dict[str, Any]:
        """The batch, once it is whole: all ranks call it, and it raises as `take`."""
        batch = self._whole()
        return {"batch": None if batch is None else batch.model_dump(mode="json")}

    def restore(self, state: dict[str, Any]) -> None:
        self._batch = None if state["batch"] is None else Batch.model_validate(state["batch"])
        self.overlapped_s = 0.0

    def _write(self, order: Order) -> tuple[list[list[Written]], float]:
        began = time.perf_counter()
        groups = dict(self._servers.write(order, should_stop=self._is_closed.is_set))
        return [groups[i] for i in range(len(order.sizes))], time.perf_counter() - began

    def _whole(self) -> Batch | None:
        """The batch with the shares of all ranks; None where there is none."""
        if (writing := self._writing) is None:
            return self._batch

        def groups_of(share: list[Problem]) -> list[list[Completion]]:
            began = time.perf_counter()
            written, writing_s = writing.written.result()
            self.overlapped_s = max(0.0, writing_s - (time.perf_counter() - began))
            return [self._servers.completions(writing.order, i, group) for i, group in enumerate(written)]

        groups = self._ranks.each(writing.problems, groups_of)
        self._batch, self._writing = Batch(step=writing.step, problems=writing.problems, groups=groups), None
        return self._batch
