"""What counts as a judge's verdict, and what of a reply is kept."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from configs.records import Completion, Problem
from configs.schema.rewards import JudgeRewardConfig
from reward_training import endpoint
from reward_training.judges.cache import ReplyCache
from reward_training.judges.judge import JudgeReward
from reward_training.judges.reply import grade, preference, text_of
from reward_training.reward import Unscored
from tests.reward_training.judges.judge_server import JudgeServer, judge_server

Make = Callable[..., Completion]
MakeProblem = Callable[..., Problem]
NO_VERDICT = Unscored("no verdict")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"details": {"score": 3}, "score": 8}', 0.8),
        ('{"score": 8, "details": {"score": 3}}', 0.8),
        ('{"score": 8, "parts": [{"score": 1}, {"score": 2}]}', 0.8),
        ('{"details": {"score": 3}}', NO_VERDICT),
        ('{"clarity": {"score": 9}, "depth": {"score": 2}}', NO_VERDICT),
        ('[{"score": 3}, {"score": 9}]', NO_VERDICT),
        ('[{"score": 3}, {"score": 9},]', NO_VERDICT),
        ('{"score": 3} would be mean; {"score": 9}', 0.9),  # the last verdict counts
        ('{"score": 9}\nThe parts: {"style": {"score": 1}}', 0.9),
        ('{"verdict": "fine"} {"score": 4}', 0.4),
        ('{"score": 4} {"reason": "fine"}', 0.4),
        ('```json\n{\n  "reason": "fine",\n  "score": 7\n}\n```', 0.7),
        ('In \\frac{1}{2} of the set {1, 2}: {"score": 6}', 0.6),
        (r'{"reason": "it is \(x^2\) and \frac{1}{2}", "score": 6}', 0.6),
        (r'{"reason": "C:\\new {", "score": 6}', 0.6),
        ('{"reason": "he said "no" twice", "score": 5}', 0.5),
        ('{"reason": "it asks for "score": 10, no", "score": 5}', NO_VERDICT),
        ('{"details": {"score": 3}, "sco', NO_VERDICT),
        ('{"details": {"score": 3}, "why": "a "quote"", "score": 8}', NO_VERDICT),
        ('{"score": 3, "score": 9}', Unscored("two verdicts in one")),
        ('{"score": 3, "score": 3}', 0.3),
        ('{"score": "8"}', 0.8),
        ('{"score": " 8.5 "}', 0.85),
        ('{"score": 1e1}', 1.0),
        ('{"score": 0}', 0.0),
        ('{"score": "8/10"}', NO_VERDICT),
        ('{"score": "\u0668"}', NO_VERDICT),
        ('{"score": true}', NO_VERDICT),
        ('{"score": null}', NO_VERDICT),
        ('{"score": [8]}', NO_VERDICT),
        ('{"score": {"value": 8}}', NO_VERDICT),
        ('{"score": NaN}', NO_VERDICT),
        ('{"score": Infinity}', NO_VERDICT),
        ('{"score": 10.01}', Unscored("verdict out of range")),
        ('{"score": 1' + 400 * "0" + "}", Unscored("verdict out of range")),
        ('{"score": 1' + 9000 * "0" + "}", Unscored("verdict out of range")),
        ('{"score": -0.5}', Unscored("verdict out of range")),
        ('{"score": 8} {"score": true}', NO_VERDICT),
        ('{"Score": 8}', NO_VERDICT),
        ("8 of 10", NO_VERDICT),
        (5000 * '{"a":' + '{"score": 3}', NO_VERDICT),
    ],
)
def test_the_grade_is_the_last_one_at_the_top_level(text: str, value: Any) -> None:
    assert grade(text, max_score=10) == value


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ('{"better": "A"}', "A"),
        ('{"first": {"better": "A"}, "better": "tie"}', "tie"),
        ('{"better": "C"}', NO_VERDICT),
        ('{"better": true}', NO_VERDICT),
        ('{"aspects": [{"better": "A"}, {"better": "A"}]}', NO_VERDICT),
        ('{"why": "the "best"", "better": "B"}', "B"),
    ],
)
def test_the_preference_is_the_last_one_at_the_top_level(text: str, choice: Any) -> None:
    assert preference(text) == choice


VERDICT = '{"score": 10}'


def reply(message: dict[str, Any], finish_reason: Any = "stop") -> dict[str, Any]:
    return {"choices": [{"finish_reason": finish_reason, "message": message}]}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (reply({"content": VERDICT}), VERDICT),
        (reply({"content": VERDICT}, None), VERDICT),
        (reply({"content": VERDICT}, "eos_token"), VERDICT),
        (reply({"content": VERDICT}, "length"), Unscored("cut off")),
        (reply({"content": VERDICT}, "MAX_TOKENS"), Unscored("cut off")),
        (reply({"content": VERDICT}, "content_filter"), Unscored("refused")),
        (reply({"content": VERDICT}, "abort"), Unscored("broken off")),
        (reply({"content": f"<think>perhaps {VERDICT}"}), Unscored("cut off")),
        (reply({"content": f"<think>perhaps {VERDICT}</think>"}), Unscored("cut off")),
        (reply({"content": f"[THINK]perhaps {VERDICT}"}), Unscored("cut off")),
        (reply({"content": f"Well. <think>perhaps {VERDICT}"}), Unscored("cut off")),
        (reply({"content": f'<think>perhaps {VERDICT}</think>\n{{"score": 2}}'}), '\n{"score": 2}'),
        (reply({"content": f'perhaps {VERDICT}</think>{{"score": 2}}'}), '{"score": 2}'),
        (reply({"content": f"It has `<think>` twice. {VERDICT}"}), f"It has ` twice. {VERDICT}".replace("` ", "`` ")),
        (reply({"content": [{"type": "text", "text": '{"sco'}, {"type": "text", "text": 're": 3}'}]}), '{"score": 3}'),
        (reply({"content": [{"type": "thinking", "text": VERDICT}, {"type": "output_text", "text": "so"}]}), "so"),
        (reply({"content": [{"type": "thinking", "thinking": VERDICT}]}), Unscored("empty reply")),
        (reply({"content": [{"type": "refusal", "refusal": "no"}]}), Unscored("refused")),
        (reply({"content": ["a", None, 3, {"type": "image_url"}, "b"]}), "ab"),
        (reply({"content": VERDICT, "refusal": "I cannot grade this."}), Unscored("refused")),
        (reply({"content": None, "refusal": "I cannot grade this."}), Unscored("refused")),
        (reply({"content": None, "reasoning_content": VERDICT}), Unscored("empty reply")),
        (reply({"content": "so", "reasoning_content": VERDICT}), "so"),
        (reply({"content": None, "tool_calls": [{"id": "1"}]}), Unscored("called a tool")),
        (reply({"content": VERDICT, "tool_calls": [{"id": "1"}]}, "tool_calls"), Unscored("called a tool")),
        (reply({"content": {"score": 10}}), Unscored("empty reply")),
        (reply({"content": 10}), Unscored("empty reply")),
        (reply({}), Unscored("empty reply")),
        ({"choices": [{"message": None}]}, Unscored("empty reply")),
        ({"choices": [VERDICT]}, Unscored("empty reply")),
        ({"choices": {}}, Unscored("empty reply")),
        ({"error": {"message": "busy"}}, Unscored("empty reply")),
        (VERDICT, Unscored("no chat completion")),
        (None, Unscored("no chat completion")),
        ([], Unscored("no chat completion")),
    ],
)  # fmt: skip
def test_only_a_whole_reply_has_a_text(answer: Any, text: Any) -> None:
    assert text_of(answer) == text


# ---- behind a server ------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., JudgeRewardConfig]:
    rubric = tmp_path / "rubric.md"
    rubric.write_text("A good response is kind.")

    def make(judge: JudgeServer, **settings: Any) -> JudgeRewardConfig:
        defaults = {"max_retries": 0, "canaries": "off", "cache": str(tmp_path / "cache.sqlite"), "timeout_s": 20}
        return JudgeRewardConfig(
            name="kind", base_url=judge.url, model="m", rubric=str(rubric), **(defaults | settings)
        )

    return make


def body(message: dict[str, Any], finish_reason: str = "stop") -> tuple[int, str]:
    return 200, json.dumps(reply(message, finish_reason))


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (body({"content": f"<think>so {VERDICT}"}, "length"), "cut off"),
        (body({"content": f"<think>so {VERDICT}"}), "cut off"),
        ("I would say eight.", "no verdict"),
        ('{"score": 80}', "verdict out of range"),
        (body({"content": None, "refusal": "no"}), "refused"),
    ],
)
def test_a_reply_without_a_verdict_is_unscored_and_asked_again(
    first: Any, reason: str, config: Callable[..., JudgeRewardConfig], make_problem: MakeProblem, make_completion: Make
) -> None:
    """It was kept for good, and the thought counted as 1.0."""
    rows = [make_problem()], [make_completion("text")]
    with judge_server(lambda messages, number: '{"score": 4}' if number else first) as judge:
        for value in (Unscored(reason), 0.4, 0.4):
            with closing(JudgeReward(config(judge))) as reward:
                assert reward(*rows) == [value]
        assert len(judge.requests) == 2


def test_content_in_parts_is_joined(
    config: Callable[..., JudgeRewardConfig], make_problem: MakeProblem, make_completion: Make
) -> None:
    """The list went to the cache, whose database refused it."""
    parts = body({"content": [{"type": "text", "text": '{"score"'}, {"type": "text", "text": ": 3}"}]})
    with judge_server(lambda messages, number: parts) as judge, closing(JudgeReward(config(judge))) as reward:
        assert reward([make_problem()] * 2, [make_completion("text")] * 2) == [0.3, 0.3]
        assert reward.take_metrics()["usage/kind/input_tokens"] == 0  # the endpoint says nothing of tokens


def test_replies_without_a_verdict_that_an_earlier_version_kept_are_asked_again(
    config: Callable[..., JudgeRewardConfig], make_problem: MakeProblem, make_completion: Make, tmp_path: Path
) -> None:
    rows = [make_problem()] * 3, [make_completion(text) for text in "abc"]
    kept = iter([f"<think>so {VERDICT}", "no idea", '<think>so</think>{"score": 7}'])
    with judge_server(lambda messages, number: '{"score": 4}') as judge:
        with closing(JudgeReward(config(judge, concurrency=1))) as reward:
            reward(*rows)
        with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as database:
            for (key,) in database.execute("SELECT key FROM replies ORDER BY rowid").fetchall():
                database.execute("UPDATE replies SET reply = ? WHERE key = ?", (next(kept), key))
            database.commit()
        with closing(JudgeReward(config(judge))) as reward:
            assert reward(*rows) == [0.4, 0.4, 0.7]
        assert len(judge.requests) == 5


@pytest.mark.parametrize("status", [200, 400])
def test_an_endless_reply_is_neither_read_to_its_end_nor_kept(
    status: int,
    config: Callable[..., JudgeRewardConfig],
    make_problem: MakeProblem,
    make_completion: Make,
    tmp_path: Path,
) -> None:
    def endless(messages: list[dict[str, str]], number: int) -> tuple[int, str]:
        return status, body({"content": "x" * 3 * endpoint.MAX_REPLY_BYTES + VERDICT})[1]

    with judge_server(endless) as judge, closing(JudgeReward(config(judge))) as reward:
        assert reward([make_problem()], [make_completion("text")]) == [Unscored("reply over 1048576 bytes")]
        assert len(judge.requests) == 1
    assert sum(path.stat().st_size for path in tmp_path.glob("cache.sqlite*")) < 100_000


def test_a_reply_that_trickles_in_ends_at_the_time_limit() -> None:
    """The library bounds the time of each read, not that of all."""

    class Trickling:
        @staticmethod
        def iter_bytes() -> Iterator[bytes]:
            while True:
                time.sleep(0.01)
                yield b" "

    response = Trickling()
    endpoint.bounded(0.1, response)
    with pytest.raises(TimeoutError):
        b"".join(response.iter_bytes())


def test_a_forgotten_reply_is_gone(tmp_path: Path) -> None:
    with closing(ReplyCache(tmp_path / "cache.sqlite")) as cache:
        cache.put("key", "one")
        cache.forget("key")
        assert cache.get("key") is None
        cache.put("key", "two")
        assert cache.get("key") == "two"
