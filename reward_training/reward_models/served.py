"""Scores conversations with a reward model that a server computes, over vLLM's HTTP interface or another server's.

A server is sent token ids, rendered and encoded here as for a model in this process, so that templates and tokenizers cannot differ. It
answers two requests, as `vllm serve` does for a sequence classifier (docs/choosing.md has both in full):

    GET  /v1/models  -> {"data": [{"id": "taste", "max_model_len": 2048}]}
    POST /classify      {"model": "taste", "input": [[5, 6, 7]], "use_activation": false, "add_special_tokens": false}
                     -> {"data": [{"probs": [1.25]}], "usage": {"prompt_tokens": 3}}

`probs` is the raw output of the head: without `use_activation: false` vLLM gives its sigmoid, which is 1.000 for all good responses. The
server may also have /tokenize and /health, which are asked where they are there.

What a server holds cannot be seen from its name. So some known texts are scored before anything else, and again whenever the
server comes back, and compared with what they had when the run first asked: other scores are other weights, and are refused
unless `version` says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from configs.disk.files import write_json
from configs.errors import ConfigError, RewardError, ServerAway, ServerRefused
from configs.records import TemplateSettings
from configs.schema.reward_models import ServedRewardModel
from reward_training.endpoint import Endpoint, Patience, key_in
from reward_training.reward import Unscored
from reward_training.reward_models.backbone import classifier_config, load_tokenizer
from reward_training.reward_models.scores import Calibration, calibrated, read_calibration
from reward_training.transformer.chat_template import PLAIN
from reward_training.transformer.rendering import conversation_ids, try_conversation_text
from reward_training.waiting import Daemons, Quiet, Waiting

T = TypeVar("T")

KNOWN_TEXTS = (
    "What is 17 + 25? It is 42, since 10 + 20 = 30 and 7 + 5 = 12.",
    "Je ne sais pas. I do not know, and I will not guess.",
    "def f(x):\n    return [y ** 2 for y in x if y % 3 == 1]\n",
    "Жили-были 三个字: ποτέ 🙂",
)
"""scored to see which weights a server holds, and tokenized to see which vocabulary it has"""
MAX_DRIFT = 0.1
"""largest root mean square difference of their scores that is taken for rounding, in standard deviations of these scores"""
SHOWN = 24


class Known(BaseModel):
    """What a server gave when a run first asked it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: dict[str, list[float]] = {}
    """{version: scores of KNOWN_TEXTS}; without a version it is the empty text"""


@dataclass(frozen=True)
class Held:
    """What a server says of the model that it holds."""

    url: str
    model: str
    max_length: int | None
    """most tokens that it takes; None if it does not say"""
    has_vocabulary: bool
    """whether its tokenizer was compared with ours; a server without /tokenize cannot be asked"""


class ServedScorer:
    """A reward model behind a server. `close`, or the end of a `with` block, ends its connections."""

    def __init__(
        self,
        name: str,
        config: ServedRewardModel,
        *,
        record: Path | None = None,
        keeps: bool = True,
        template: TemplateSettings = PLAIN,
        waiting: Waiting = Waiting(),  # noqa: B008 - it is frozen
    ) -> None:
        """`record` is the file with what the server gave before; with `keeps` what it gives under a new version is added."""
        self._field, self._config, self._record, self._keeps = f"reward_models.{name}", config, record, keeps
        settings = classifier_config(config.path, f"{self._field}.path", config.revision)
        self.max_length = config.max_length
        self.calibration: Calibration | None = read_calibration(config.path)
        self.tokenizer = load_tokenizer(config.path, template, config.revision)
        self._pad_id: int | None = settings.get_text_config().pad_token_id
        key = key_in(config.api_key_env, f"{self._field}.api_key_env")
        self._endpoint = Endpoint(
            config.url, timeout_s=config.timeout_s, key=key, max_connections=config.concurrency + 1
        )
        self._patience = Patience(config.patience_s, f"{self._field} at {config.url}", waiting=waiting)
        self._quiet = Quiet(waiting.should_stop)
        self._threads = Daemons(config.concurrency)
        self._encoding, self._checking = Lock(), Lock()
        self._is_checked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._threads.close()
        self._endpoint.close()

    # ---- scores ---------------------------------------------------------------------------------------------------------

    def encode(self, conversations: list[str]) -> list[list[int]]:
        """Token ids of the conversations; several threads may ask for them, and a tokenizer serves one at a time."""
        with self._encoding:
            return conversation_ids(self.tokenizer, conversations)

    def scores(self, conversations: list[str]) -> list[float | Unscored]:
        """A raw score for each conversation, or the reason why there is none. Equal ones are asked once.

        Raises:
            StageStopped: the stage was asked to stop while the server was away or gave nothing.
        """
        sequences = [tuple(scored_part(ids, self._pad_id)) for ids in self.encode(conversations)]
        asked = {ids: self._threads.submit(partial(self._score, ids)) for ids in dict.fromkeys(sequences)}
        return [self._result(asked[ids]) for ids in sequences]

    def _result(self, future: Future[T]) -> T:
        self._quiet.wait_for([future], f"stopped while {self._field} at {self._config.url} gave no answer")
        return future.result()

    def calibrated(self, scores: Sequence[float]) -> list[float]:
        """(score - mean) / std by the model's calibration; the scores unchanged if it has none."""
        return calibrated(scores, self.calibration)

    def _score(self, ids: tuple[int, ...]) -> float | Unscored:
        while True:
            asked_s = time.monotonic()
            try:
                self._check_once()
                values = values_of(self._ask([list(ids)]), [len(ids)])
            except ServerRefused as refusal:
                values = unscored(refusal)
            except ServerAway as away:
                self._is_checked = False
                if not self._patience.lasts(str(away)):
                    return Unscored(f"server away for {self._config.patience_s:g} s")
                continue
            self._patience.answered(asked_s)
            self._quiet.broken()
            return values if isinstance(values, Unscored) else values[0]

    def _ask(self, sequences: list[list[int]]) -> Any:
        body = {
            "model": self._config.model,
            "input": sequences,
            "use_activation": False,
            "add_special_tokens": False,
        }
        return self._endpoint.post("/classify", body)

    # ---- which model it is ----------------------------------------------------------------------------------------------

    def open(self) -> Held:
        """Make sure that the server holds the model of the configuration, and wait for a server that is away.

        Raises:
            ConfigError: it does not, or the server refuses to say.
            ServerAway: it was away for `patience_s`.
            StageStopped: the stage was asked to stop meanwhile.
        """
        while True:
            asked_s = time.monotonic()
            try:
                held = self._result(self._threads.submit(self.check))
            except ServerAway as away:
                if not self._patience.lasts(str(away)):
                    remedy = f"start it, or mend {self._field}.url"
                    raise ServerAway(
                        f"{self._field}.url={self._config.url}: the server does not answer ({away}); {remedy}"
                    ) from away
                continue
            self._patience.answered(asked_s)
            self._is_checked = True
            return held

    def check(self) -> Held:
        """What the server holds.

        Raises:
            ConfigError: not the model of the configuration, or it cannot score our longest conversations.
            ServerAway: it does not answer.
        """
        entry = self._entry()
        longest = entry.get("max_model_len")
        if isinstance(longest, int) and longest < self.max_length:
            raise ConfigError(
                f"{self._field}.max_length={self.max_length}: the server at {self._config.url} takes up to {longest} tokens; "
                f"lower it to {longest}, or start the server with --max-model-len {self.max_length}"
            )
        has_vocabulary = self._compare_vocabulary()
        self._compare_known(self._known_scores())
        return Held(self._config.url, self._config.model, longest if isinstance(longest, int) else None, has_vocabulary)

    def _check_once(self) -> None:
        """Check a server that has been away, which may have come back with another model.

        Raises:
            RewardError: it has.
        """
        with self._checking:
            if self._is_checked:
                return
            try:
                self.check()
            except ConfigError as error:
                raise RewardError(str(error)) from error
            self._is_checked = True

    def _entry(self) -> dict[str, Any]:
        """What the server says of our model in its list of models."""
        try:
            entries = self._endpoint.models()
        except ServerRefused as refusal:
            self._refuse_without_key(refusal)
            raise ConfigError(
                f"{self._field}.url={self._config.url}: no server of models (GET /v1/models: {unscored(refusal).reason}); give the address "
                "without the path of an endpoint, as in http://127.0.0.1:8000"
            ) from refusal
        if self._config.model not in entries:
            raise ConfigError(
                f"{self._field}.model={self._config.model!r}: the server at {self._config.url} serves {sorted(entries)}; name one of "
                f"them, or start it with --served-model-name {self._config.model}"
            )
        return entries[self._config.model]

    def _refuse_without_key(self, refusal: ServerRefused) -> None:
        if refusal.status in (401, 403):
            given = self._config.api_key_env
            raise ConfigError(
                f"{self._field}.api_key_env={given}: the server at {self._config.url} refuses (status {refusal.status}); export its key and name "
                "the variable"
            ) from refusal

    def _compare_vocabulary(self) -> bool:
        """Whether the server's tokens could be compared with ours; they are equal then, also those of a rendered conversation."""
        chat = try_conversation_text(self.tokenizer, [{"role": "user", "content": KNOWN_TEXTS[0]}], KNOWN_TEXTS[1])
        for text in filter(None, (*KNOWN_TEXTS, chat)):
            body = {"model": self._config.model, "prompt": text, "add_special_tokens": False}
            try:
                reply = self._endpoint.post("/tokenize", body)
            except ServerRefused:
                return False
            theirs = reply.get("tokens") if isinstance(reply, dict) else None
            if not isinstance(theirs, list):
                return False
            if theirs != (ours := self._known_ids(text)):
                raise ConfigError(
                    f"{self._field}.path={self._config.path}: the server at {self._config.url} has another vocabulary: {text[:SHOWN]!r} begins with the "
                    f"tokens {theirs[:SHOWN]} there, and with {ours[:SHOWN]} by this tokenizer; name the folder that the server was started with"
                )
        return True

    def _known_ids(self, text: str) -> list[int]:
        with self._encoding:
            ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _known_scores(self) -> list[float]:
        sequences = [self._known_ids(text)[: self.max_length] for text in KNOWN_TEXTS]
        try:
            values = values_of(self._ask(sequences), [len(ids) for ids in sequences])
        except ServerRefused as refusal:
            self._refuse_without_key(refusal)
            values = unscored(refusal)
        if isinstance(values, Unscored):
            raise ConfigError(
                f"{self._field}.url={self._config.url}: the server gives no score for {self._config.model!r} (POST /classify: {values.reason}); serve a "
                "sequence classifier with one output: docs/choosing.md says how"
            )
        return values

    def _compare_known(self, scores: list[float]) -> None:
        """Compare with the scores of before, or keep these where there are none of this version."""
        if self._record is None:
            return
        known, version = _read_known(self._record).scores, self._config.version or ""
        before = known.get(version, [])
        if len(before) != len(scores):  # of another version, or of one of Regroup's with other texts
            if self._keeps:
                write_json(self._record, Known(scores=known | {version: scores}).model_dump())
        elif drift(before, scores) > MAX_DRIFT:
            raise ConfigError(
                f"{self._field}.version={self._config.version!r}: the server at {self._config.url} gives known texts the scores {_shown(scores)}, and gave "
                f"{_shown(before)} when this run first asked: it holds other weights. Give them another version, and evaluations are "
                "made anew, or start it with those of before"
            )


def _read_known(record: Path) -> Known:
    try:
        return Known.model_validate_json(record.read_bytes())
    except (FileNotFoundError, ValidationError):
        return Known()


def _shown(scores: Sequence[float]) -> str:
    return "[" + ", ".join(f"{score:.3g}" for score in scores) + "]"


def drift(before: Sequence[float], now: Sequence[float]) -> float:
    """Root mean square difference of two lists of scores, in standard deviations of the first.

    >>> drift([1.0, 3.0], [1.5, 3.5])
    0.5
    """
    first, second = np.array(before), np.array(now)
    difference = float(np.sqrt(np.mean((first - second) ** 2)))
    return difference / max(float(first.std()), 1e-6)


def scored_part(ids: list[int], pad_id: int | None) -> list[int]:
    """The tokens up to the one whose score transformers takes, the last that is not the pad token; a server takes the last one.

    >>> scored_part([5, 6, 0, 7, 0, 0], 0)
    [5, 6, 0, 7]
    >>> scored_part([0, 0], 0)
    [0]
    """
    end = len(ids)
    while end > 1 and ids[end - 1] == pad_id:
        end -= 1
    return ids[:end]


def unscored(refusal: ServerRefused) -> Unscored:
    """Why a server that refused gave no scores."""
    return Unscored("an endless or broken reply" if refusal.status is None else f"status {refusal.status}")


def values_of(body: Any, lengths: Sequence[int]) -> list[float] | Unscored:
    """The scores in a server's answer to sequences of `lengths` tokens, or why there are none."""
    body = body if isinstance(body, dict) else {}
    rows = [_list(row.get("probs")) if isinstance(row, dict) else [] for row in _list(body.get("data"))]
    values = [value for row in rows for value in row if isinstance(value, int | float)]
    if len(rows) != len(lengths) or not values:
        return Unscored("no scores in the reply")
    if len(values) != len(rows) or any(len(row) != 1 for row in rows):
        return Unscored(f"{max(map(len, rows))} outputs")
    usage = body.get("usage")
    num_read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if isinstance(num_read, int) and num_read != sum(lengths):
        return Unscored(f"{num_read} tokens read of {sum(lengths)}")
    return [float(value) for value in values]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
