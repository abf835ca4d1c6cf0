"""Sends questions to an OpenAI-compatible endpoint, with a budget and a cache of the replies that have a verdict.

The official client makes the requests, with its timeout and its retries with exponential backoff.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from configs.errors import ConfigError
from configs.schema.rewards import JudgeRewardConfig
from reward_training.endpoint import MAX_REPLY_BYTES, ReplyTooLong, bounded, key_in
from reward_training.judges.cache import ReplyCache, reply_key
from reward_training.judges.reply import after_thoughts, text_of
from reward_training.reward import Unscored

NO_KEY = "none"
"""the library requires a key; a server without keys ignores it"""

VerdictT = TypeVar("VerdictT")
Read = Callable[[str], VerdictT | Unscored]
"""finds the verdict in the text of a reply"""


@dataclass(frozen=True)
class Question:
    """The system and the user message of a request to the judge."""

    system: str
    user: str


class JudgeClient:
    """Gets the judge's replies to questions, several at once. Close it after use."""

    def __init__(self, config: JudgeRewardConfig) -> None:
        self._config = config
        self._library = _library(config.name)
        self._client = self._library.OpenAI(
            base_url=config.base_url,
            api_key=key_in(config.api_key_env, f"reward {config.name!r}: api_key_env") or NO_KEY,
            timeout=config.timeout_s,
            max_retries=config.max_retries,
            http_client=self._library.DefaultHttpxClient(
                event_hooks={"response": [partial(bounded, config.timeout_s)]}
            ),
        )
        self._cache = ReplyCache(Path(config.cache))
        self._threads = ThreadPoolExecutor(config.concurrency)
        self._lock = Lock()
        self._calls = 0
        self._tokens = 0
        self._usage: Counter[str] = Counter()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._client.close()
        self._cache.close()

    def ask(self, questions: Sequence[Question], read: Read[VerdictT]) -> list[VerdictT | Unscored]:
        """The verdict that `read` finds in the reply to each question, or the reason why there is none.

        Equal questions are asked once. A reply without a verdict is not kept, so that its question is asked again.
        """
        ask_one: Callable[[Question], VerdictT | Unscored] = partial(self._ask_one, read=read)
        distinct = {question: self._threads.submit(ask_one, question) for question in dict.fromkeys(questions)}
        return [distinct[question].result() for question in questions]

    def probe(self) -> Unscored | None:
        """Send a test question, without cache and budget. Returns None, or the reason why there is no reply."""
        reply = self._request(Question("Reply with one word.", "Are you there?"))
        return reply if isinstance(reply, Unscored) else None

    def take_usage(self) -> dict[str, float]:
        """Requests, cached replies, tokens and (with configured prices) cost since the last `take_usage`."""
        with self._lock:
            used, self._usage = self._usage, Counter()
        names = ("calls", "cached", "input_tokens", "output_tokens")
        usage = {name: float(used[name]) for name in names}
        if (prices := self._config.prices) is not None:
            input_price, output_price = prices.input_per_million, prices.output_per_million
            usage["cost"] = (used["input_tokens"] * input_price + used["output_tokens"] * output_price) / 1e6
        return usage

    def _ask_one(self, question: Question, read: Read[VerdictT]) -> VerdictT | Unscored:
        config = self._config
        key = reply_key(config.model, str(config.max_verdict_length), question.system, question.user)
        if (known := self._known(key, read)) is not None:
            self._count(cached=1)
            return known
        if (spent := self._budget_spent()) is not None:
            return Unscored(spent)
        reply = self._request(question)
        verdict = reply if isinstance(reply, Unscored) else read(reply)
        if not isinstance(reply, Unscored) and not isinstance(verdict, Unscored):
            self._cache.put(key, reply)
        return verdict

    def _known(self, key: str, read: Read[VerdictT]) -> VerdictT | None:
        """The verdict of the reply in the cache. One without a verdict, which earlier versions kept, is forgotten."""
        if (reply := self._cache.get(key)) is None:
            return None
        text = after_thoughts(reply)
        verdict = text if isinstance(text, Unscored) else read(text)
        if isinstance(verdict, Unscored):
            self._cache.forget(key)
            return None
        return verdict

    def _budget_spent(self) -> str | None:
        """The reason if the budget is spent; otherwise None, and the request is counted."""
        config = self._config
        with self._lock:
            if config.max_calls is not None and self._calls >= config.max_calls:
                return "max_calls are spent"
            if config.max_tokens is not None and self._tokens >= config.max_tokens:
                return "max_tokens are spent"
            self._calls += 1
        self._count(calls=1)
        return None

    def _request(self, question: Question) -> str | Unscored:
        messages = [{"role": "system", "content": question.system}, {"role": "user", "content": question.user}]
        try:
            response = self._client.chat.completions.with_raw_response.create(
                model=self._config.model,
                messages=messages,
                temperature=0,
                max_tokens=self._config.max_verdict_length,
            )
            answer = json.loads(response.content)
        except (self._library.APITimeoutError, TimeoutError):
            return Unscored("timeout")
        except self._library.APIConnectionError:
            return Unscored("no connection")
        except self._library.APIStatusError as error:
            return Unscored(f"status {error.status_code}")
        except ReplyTooLong:
            return Unscored(f"reply over {MAX_REPLY_BYTES} bytes")
        except (self._library.OpenAIError, ValueError, RecursionError):  # the reply is no chat completion
            return Unscored("no chat completion")
        self._record(answer)
        return text_of(answer)

    def _record(self, answer: Any) -> None:
        usage = answer.get("usage") if isinstance(answer, dict) else None
        if isinstance(usage, dict):
            given, written = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
            self._count(input_tokens=_as_count(given), output_tokens=_as_count(written))

    def _count(self, **counts: int) -> None:
        with self._lock:
            self._usage.update(counts)
            self._tokens += counts.get("input_tokens", 0) + counts.get("output_tokens", 0)


def _as_count(value: object) -> int:
    """What the endpoint says of its tokens; 0 where it says nothing."""
    return value if isinstance(value, int) else 0


def _library(name: str) -> Any:
    try:
        return importlib.import_module("openai")
    except ImportError as error:
        raise ConfigError(
            f"reward {name!r} of kind judge needs the package openai; install the extra: pip install 'regroup[judge]'"
        ) from error
