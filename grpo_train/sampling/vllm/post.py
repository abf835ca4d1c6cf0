"""One server at work: whether it holds the right weights, gives them to it where it does not, and waits where it is away.

A server that is restarted starts from its own model, and would write with that. So before it is asked, and again and
again, it has to say which weights it holds; a restart takes longer than SURE_FOR_S, so one that answered within that
time is the same still.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from configs.errors import ServerAway
from configs.schema.grpo import VllmConfig
from grpo_train.sampling.vllm.known import KnownToken, refuse_mismatch, server_mismatch
from grpo_train.sampling.vllm.plugin import held
from reward_training.endpoint import Endpoint, Patience
from reward_training.waiting import Waiting

SURE_FOR_S = 5.0
LOOK_EVERY_S = 1.0
QUICK_S = 30.0
"""for questions that a server answers from memory"""
MAX_RESPONSE_BYTES = 2**26
"""of one response with its log-probabilities, some hundred bytes a token"""


def connect(url: str) -> Endpoint:
    """A server in the trainer's own network: no proxy of the environment lies between."""
    return Endpoint(url, timeout_s=QUICK_S, max_bytes=MAX_RESPONSE_BYTES, by_proxy=False)


@dataclass(frozen=True)
class Holding:
    """The weights that all servers should hold."""

    version: str
    """what a server says that it holds: of full weights"""
    give: Callable[[Endpoint], None]
    """gives them to one server; nothing where it holds them"""
    adapter: str | None = None
    """name of the adapter on the server, if they are one"""
    known: Sequence[KnownToken] = ()
    """tokens with the log-probabilities that these weights give them"""
    mismatches: dict[str, float] = field(default_factory=dict)
    """{url: distance of the server's log-probabilities from those} of each server that was given them"""

    def is_held(self, server: Endpoint) -> bool:
        """Whether the server holds them; an adapter is there only together with its base."""
        if self.adapter is None:
            return held(server) == self.version
        return self.adapter in server.models()


class Post:
    """A server, and what is known of its state. Threads share it."""

    def __init__(
        self,
        server: Endpoint,
        config: VllmConfig,
        *,
        gives: bool,
        warn: Callable[[str], None],
    ) -> None:
        """`gives`: whether this process gives weights to servers; others wait until that was done."""
        self.server, self.config, self.gives, self.warn = server, config, gives, warn
        self.patience = Patience(config.patience_s, f"the vLLM server {server.url}", waiting=Waiting(warn))
        self.is_given_up = False
        """whether it was said that others go on without it"""
        self._lock = threading.Lock()
        self._own_model = ""
        self._wanted: Holding | None = None
        self._sure_of: Holding | None = None
        self._sure_until = 0.0

    def answered(self, asked_s: float, holding: Holding) -> None:
        """To be called when it has answered a request of the time `asked_s` (`time.monotonic`), which `is_right` preceded.

        An answer to what was asked before the last failure says nothing of the server that may be there now.
        """
        with self._lock:
            if self.patience.answered(asked_s):
                self.is_given_up = False
                if holding is self._sure_of:
                    self._sure_until = time.monotonic() + SURE_FOR_S

    def failed(self, why: ServerAway) -> None:
        """To be called when a request has failed.

        Raises:
            ServerAway: requests have been failing for `patience_s`.
        """
        with self._lock:
            self._sure_until = 0.0
            self._refuse_long(why)

    def want(self, holding: Holding) -> None:
        """From now on it should hold these weights; a thread that still asks for others gets no further."""
        self._wanted = holding

    def model(self, holding: Holding) -> str:
        """What a request has to name as its model."""
        return holding.adapter or self._own_model

    def is_right(self, holding: Holding) -> bool:
        """Whether it holds the weights, after giving them if need be; False while it is away or others have to give them.

        Raises:
            ServerAway: it has been away for `patience_s`.
            ServerRefused: it does not take the weights.
            ServerDiffers: it took them, and gives known tokens other log-probabilities.
        """
        with self._lock:
            looked_s = time.monotonic()
            if holding is not self._wanted:
                return False
            if holding is self._sure_of and looked_s < self._sure_until:
                return True
            try:
                is_held = holding.is_held(self.server)
                if not is_held and self.gives:
                    holding.give(self.server)
                    looked_s = time.monotonic()
                    holding.mismatches.pop(self.server.url, None)
                    is_held = True
                if is_held:
                    [self._own_model, *_] = self.server.models()
                    self._compare(holding)
            except ServerAway as error:
                self._refuse_long(error)
                return False
            if is_held:
                self._sure_of, self._sure_until = holding, looked_s + SURE_FOR_S
            return is_held

    def wait_until_right(self, holding: Holding, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Wait until `is_right`; False if `is_over` comes first. Raises as that does."""
        while not is_over():
            if self.is_right(holding):
                return True
            time.sleep(LOOK_EVERY_S)
        return False

    def _compare(self, holding: Holding) -> None:
        """Compare known tokens, once for each time that the weights were given."""
        if not self.gives or not holding.known or self.server.url in holding.mismatches:
            return
        mismatch = server_mismatch(self.server, self.model(holding), holding.known, self.config.request_timeout_s)
        refuse_mismatch(self.server, mismatch, self.config.max_mismatch, f"the policy {holding.version}")
        holding.mismatches[self.server.url] = mismatch

    def _refuse_long(self, why: ServerAway) -> None:
        """Note a failure; raises ServerAway if there have been only failures for `patience_s`."""
        if self.patience.failed(str(why)) <= 0:
            raise ServerAway(
                f"the vLLM server {self.server.url} has been away or hanging for {self.config.patience_s:g} s "
                f"(grpo_config.vllm.patience_s), at last: {why}; start it again, and run the same command again"
            ) from why
