"""The time of a round that the doctor expects, by method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import flows.doctor.timing as doctor_timing
from flows.doctor.report import duration, render_time
from flows.doctor.timing import RoundTime, Speed, round_time
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from tests.flows.doctor.conftest import Configure


def test_time_of_a_round_is_responses_times_speed(configure: Configure) -> None:
    time = round_time(configure(), Speed(0.5, 2.0), {"train": 40, "dev": 16, "test": 16})
    assert time.seconds == {
        "reward model taste": 2 * 40 * 4 * 2.0,  # two responses a pair, 40 problems x 4 pairs
        "policy": 6 * 16 * (0.5 + 2.0),  # 6 updates of 16 responses
        "evaluate": 32 * 3 * 0.5,  # one greedy and two sampled responses a problem
        "regenerate": 40 * 4 * 0.5,
    }
    assert time.total == 640 + 240 + 48 + 80


def test_time_of_a_training_on_pairs_is_that_of_as_many_as_there_can_be(configure: Configure) -> None:
    config = configure(method={"kind": "dpo", "pairs_per_problem": 2, "epochs": 3})
    time = round_time(config, Speed(0.5, 1.5), {"train": 40, "dev": 16, "test": 16})
    assert time.seconds["policy"] == 2 * 40 * 2 * 3 * (1.5 + 0.5)  # responses of 40 problems x 2 pairs x 3 epochs


@pytest.mark.parametrize(
    ("method", "grpo", "seconds"),
    [
        (
            {"kind": "grpo"},
            {"kl_coefficient": 0.1},
            6 * 16 * (0.5 + 1.5 + 0.5),
        ),  # the reference's forward pass: a third
        ({"kind": "grpo"}, {"row_sampling": {"share": 0.25}}, 6 * 16 * (0.5 + 1.5 / 4)),
        ({"kind": "grpo"}, {"updates_per_batch": 2}, 3 * 16 * (0.5 + 2 * 1.5)),  # 6 updates on 3 batches
        ({"kind": "best_of_n"}, {}, 6 * (16 * 0.5 + 4 * 1.5)),  # 4 of 16 responses are imitated
        ({"kind": "best_of_n", "mode": "offline", "epochs": 3}, {}, 24 * 4 * 0.5 + 3 * 24 * 1.5),  # of 6 x 4 problems
        (
            {"kind": "best_of_n", "mode": "offline"},
            {"max_updates": 12},
            40 * 4 * 0.5 + 40 * 1.5,
        ),  # each of 40 problems once
        # value model: a forward pass and an update of each step's responses, and 2 warm-up updates
        ({"kind": "ppo", "value_warmup_updates": 2}, {}, 6 * 16 * (0.5 + 1.5 + 2.0) + 2 * 16 * 1.5),
        ({"kind": "dpo"}, {"kl_coefficient": 0.0}, 2 * 40 * (1.5 + 0.5)),  # nothing is sampled
    ],
)
def test_time_of_a_training_is_that_of_its_method(
    method: dict[str, Any], grpo: dict[str, Any], seconds: float, configure: Configure
) -> None:
    """A best-of-N was taken for an update on every response, and one that writes beforehand for a loop; a KL term cost nothing."""
    config = configure(method=method, grpo_config={"epochs": 8} | grpo)
    assert round_time(config, Speed(0.5, 1.5), {"train": 40, "dev": 16, "test": 16}).seconds["policy"] == pytest.approx(
        seconds
    )


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"generated_tokens": 400}, 3),  # of 16 responses of 10 tokens
        ({"generated_tokens": 9000}, 6),  # all updates
        ({"train_seconds": 33}, 2),  # of 32 s
    ],
)
def test_a_training_ends_with_the_step_that_spends_its_budget(
    budget: dict[str, int], steps: int, configure: Configure
) -> None:
    config = configure(budget=budget, grpo_config={"epochs": 8})
    time = round_time(config, Speed(0.5, 1.5, tokens_per_response=10), {"train": 40, "dev": 16, "test": 16})
    assert time.seconds["policy"] == steps * 16 * (0.5 + 1.5)


def test_the_suites_are_in_the_time_of_a_round(configure: Configure) -> None:
    gcd = {"kind": "reasoning_gym", "family": "gcd", "size": 10}
    sums = {
        "kind": "generate",
        "problems": gcd,
        "checker": {"name": "right"},
        "num_items": 10,
        "max_response_length": 16,
    }
    suites = {"sums": sums, "prose": {"kind": "text", "path": "t.jsonl"}}
    config = configure(evaluation={"retention": suites, "num_kl_problems": 6}, grpo_config={"max_response_length": 8})
    time = round_time(config, Speed(0.5, 3.0, 7.0), {"train": 40, "dev": 16, "test": 16})
    assert time.seconds["old abilities"] == 7 + 10 * 2 * 0.5 + 6 * 1.0  # texts; responses twice as long; the forward KL


def test_reading_a_suite_is_timed_on_its_first_items(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 texts of 2 tokens and 4 of 10, the first 8 have 16 of the 80 tokens."""
    monkeypatch.setattr(doctor_timing, "_timed", lambda work, device: (work(), 3.0))
    rows = [{"text": f"{i:02d}"} for i in range(20)] + [{"text": f"{i}" * 10} for i in range(4)]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = [{"question": "ab", "choices": ["c", "d"], "answer": 0, "at": i} for i in range(2)]
    Path("c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    suites = {"prose": {"kind": "text", "path": "t.jsonl"}, "facts": {"kind": "choice", "path": "c.jsonl"}}
    config, tokenizer = configure(evaluation={"retention": suites}), build_tiny_tokenizer()
    model = build_tiny_model(tokenizer)
    seconds = {
        name: doctor_timing._seconds_to_read(config, name, suite, model, tokenizer)
        for name, suite in config.evaluation.retention.items()
    }
    assert seconds == {"prose": 3.0 * 80 / 16, "facts": 3.0}


def test_responses_that_were_cut_are_taken_to_reach_the_limit() -> None:
    class Response:
        def __init__(self, length: int) -> None:
            self.token_ids = [0] * length

    responses: Any = [Response(4), Response(8)]
    assert doctor_timing._stretch(responses, 8, 8) == 1.0
    assert doctor_timing._stretch(responses, 8, 32) == (4 + 32) / (4 + 8)


def test_times_are_readable() -> None:
    assert render_time(RoundTime({"policy": 300.0, "evaluate": 42.0})) == (
        "a round takes up to about 6 min here: policy 5 min, evaluate 42 s"
    )
    assert duration(9000) == "2.5 h"
