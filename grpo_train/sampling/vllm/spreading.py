"""Spreads requests over servers: each server takes the next one when it has room, and another's when that one went away."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from configs.errors import ServerAway
from grpo_train.sampling.vllm.asking import COMPLETIONS, Ask, Written, written
from grpo_train.sampling.vllm.post import Holding, Post

LOOK_EVERY_S = 0.2


class Work:
    """Requests that are still to be done, shared by threads."""

    def __init__(self, asks: Sequence[Ask], num_posts: int) -> None:
        self.results: queue.Queue[tuple[Ask, Written] | BaseException] = queue.Queue()
        self._open = deque(asks)
        self._num_left = len(asks)
        self._num_posts = num_posts
        self._given_up: set[Post] = set()
        self._changed = threading.Condition()

    def take(self) -> Ask | None:
        """The next request, as soon as there is one; None when all are done or the work has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._open or self._num_left == 0)
            return self._open.popleft() if self._open and self._num_left else None

    def put_back(self, ask: Ask) -> None:
        """It was not done."""
        with self._changed:
            self._open.appendleft(ask)
            self._changed.notify()

    def done(self, ask: Ask, response: Written) -> None:
        self.results.put((ask, response))
        with self._changed:
            self._num_left = max(self._num_left - 1, 0)  # an answer may come after the end
            if self._num_left == 0:
                self._changed.notify_all()

    def end(self) -> None:
        """Nothing more is wanted."""
        with self._changed:
            self._num_left = 0
            self._changed.notify_all()

    def is_over(self) -> bool:
        return self._num_left == 0

    def give_up(self, post: Post, error: ServerAway) -> None:
        """The server stays away; an end for all, if it is the last one."""
        with self._changed:
            self._given_up.add(post)
            is_last = len(self._given_up) == self._num_posts
            is_news, post.is_given_up = not post.is_given_up, True
        if is_last:
            self.results.put(error)
        elif is_news:
            post.warn(f"the vLLM server {post.server.url} stays away; the other servers go on")


def responses(
    posts: Sequence[Post],
    holding: Holding,
    asks: Sequence[Ask],
    *,
    at_once: int,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Ask, Written]]:
    """Each request with its response, as they come; about `at_once` are under way at the same time.

    `on_wait` is called some times a second; what it raises ends the work.

    Raises:
        ServerAway: all servers have been away for `patience_s`.
        ServerRefused, ServerDiffers: one does not do what it is asked, or holds other weights.
    """
    work = Work(asks, len(posts))
    num_threads = -(-min(at_once, len(asks)) // len(posts))
    for _ in range(num_threads):
        for post in posts:
            threading.Thread(target=_serve, args=(post, holding, work), daemon=True).start()
    num_missing = len(asks)
    try:
        while num_missing:
            on_wait()
            try:
                result = work.results.get(timeout=LOOK_EVERY_S)
            except queue.Empty:
                continue
            if isinstance(result, BaseException):
                raise result
            num_missing -= 1
            yield result
    finally:
        work.end()


def _serve(post: Post, holding: Holding, work: Work) -> None:
    """One thread of a server: it asks for one response after the other."""
    try:
        while post.wait_until_right(holding, work.is_over) and (ask := work.take()) is not None:
            if not post.is_right(holding):  # it may have been a while since the last look
                work.put_back(ask)
                continue
            asked_s = time.monotonic()
            try:
                body = ask.body | {"model": post.model(holding)}
                answer = post.server.post(COMPLETIONS, body, post.config.request_timeout_s)
                response = written(answer, ask.body["max_tokens"])
            except ServerAway as error:
                if work.is_over():  # nobody waits for the answer any more; the connection may have been closed for that
                    return
                work.put_back(ask)
                post.failed(error)
                continue
            post.answered(asked_s, holding)
            work.done(ask, response)
    except ServerAway as error:
        work.give_up(post, error)
    except Exception as error:  # noqa: BLE001 - raised again by whoever waits for the results
        work.results.put(error)
