"""Reward models behind a server: the local model's scores, and everything that a server may be or do instead."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedTokenizerFast

from configs.errors import ConfigError, RewardError, ServerAway, StageStopped
from configs.schema.reward_models import ServedRewardModel
from configs.schema.rewards import ModelRewardConfig
from reward_training import waiting
from reward_training.endpoint import MAX_REPLY_BYTES, Patience
from reward_training.reward import Unscored
from reward_training.reward_models.scores import RewardModelScorer, save_calibration
from reward_training.reward_models.served import Known, ServedScorer, values_of
from reward_training.scorer import RewardModelSource, build_rewards, score
from reward_training.waiting import Waiting
from tests.reward_training.conftest import completion, problem
from tests.reward_training.reward_models.scoring_server import ScoringServer, scoring_server
from tests.reward_training.transformer.templates import CHATML, tokenizer_with

TEXTS = [f"<|user|>{i} + {i}?<|end|>\n<|assistant|>{'so ' * (i % 4)}{2 * i}<|end|>\n" for i in range(12)]


def save_model(folder: Path, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, num_labels: int = 1) -> Path:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, num_labels=num_labels, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    return save_model(tmp_path / "model", tokenizer)


@pytest.fixture
def server(folder: Path) -> Iterator[ScoringServer]:
    with scoring_server(folder) as scoring:
        yield scoring


def config_for(server: ScoringServer, **fields: Any) -> ServedRewardModel:
    known = {"url": server.url, "model": "taste", "path": str(server.folder), "max_length": 128, "patience_s": 0.0}
    return ServedRewardModel(**{**known, **fields})


def local_scores(folder: Path, texts: list[str]) -> list[float]:
    with RewardModelScorer(folder, max_length=128, precision="float32", device=torch.device("cpu")) as scorer:
        return scorer.scores(texts)


def test_a_served_model_gives_the_local_models_scores_without_its_weights(
    server: ScoringServer, folder: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "settings"
    shutil.copytree(folder, settings, ignore=shutil.ignore_patterns("*.safetensors"))
    with ServedScorer("taste", config_for(server, path=str(settings))) as scorer:
        held = scorer.open()
        served = scorer.scores(TEXTS)
    assert served == pytest.approx(local_scores(folder, TEXTS), abs=1e-5)
    assert len(set(served)) == len(TEXTS)
    assert (held.model, held.max_length, held.has_vocabulary) == ("taste", 256, True)
    assert all(body["use_activation"] is False and body["add_special_tokens"] is False for body in server.asked)


def test_a_conversation_that_ends_with_pad_tokens_is_scored_where_transformers_scores_it(
    server: ScoringServer, folder: Path
) -> None:
    """The tokenizer's pad token is the end of a turn: transformers takes the token before, a server takes the last."""
    texts = ["<|user|>2?<|end|><|assistant|>4<|end|>", "<|user|>2?<|end|><|assistant|>5<|end|><|end|>"]
    with ServedScorer("taste", config_for(server)) as scorer:
        served = scorer.scores(texts)
        sent = [body["input"][0] for body in server.asked[1:]]
    assert served == pytest.approx(local_scores(folder, texts), abs=1e-5)
    assert all(ids[-1] != scorer.tokenizer.pad_token_id for ids in sent)


def test_a_model_that_was_trained_here_brings_its_calibration(server: ScoringServer, folder: Path) -> None:
    save_calibration(folder, [1.0, 5.0])  # mean 3, deviation 2
    with ServedScorer("taste", config_for(server)) as scorer:
        assert scorer.calibrated([5.0]) == [1.0]


def test_equal_conversations_are_asked_once(server: ScoringServer) -> None:
    with ServedScorer("taste", config_for(server)) as scorer:
        first, second, third = scorer.scores([TEXTS[0], TEXTS[1], TEXTS[0]])
    assert first == third != second
    assert len(server.asked) == 3  # the known texts, and two conversations


def test_the_key_in_the_named_variable_is_sent(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTE_KEY", "s3cret")
    with scoring_server(folder, key="s3cret") as server:
        with ServedScorer("taste", config_for(server, api_key_env="TASTE_KEY")) as scorer:
            scorer.open()
        with (
            ServedScorer("taste", config_for(server)) as scorer,
            pytest.raises(ConfigError, match=r"reward_models\.taste\.api_key_env=None: .* refuses \(status 401\)"),
        ):
            scorer.open()
        monkeypatch.delenv("TASTE_KEY")
        with pytest.raises(ConfigError, match=r"reward_models\.taste\.api_key_env=TASTE_KEY is not set"):
            ServedScorer("taste", config_for(server, api_key_env="TASTE_KEY"))


# ---- another model, or none -----------------------------------------------------------------------------------------


def refusal(server: ScoringServer, **fields: Any) -> str:
    with ServedScorer("taste", config_for(server, **fields)) as scorer, pytest.raises(ConfigError) as caught:
        scorer.open()
    return str(caught.value)


def test_a_server_of_another_model_is_refused(server: ScoringServer) -> None:
    said = refusal(server, model="style")
    assert "reward_models.taste.model='style'" in said
    assert "serves ['taste']; name one of them, or start it with --served-model-name style" in said


def test_too_short_a_context_is_refused(server: ScoringServer) -> None:
    said = refusal(server, max_length=300)
    assert "reward_models.taste.max_length=300" in said
    assert "takes up to 256 tokens; lower it to 256, or start the server with --max-model-len 300" in said


def test_another_vocabulary_is_refused(server: ScoringServer, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", tokenizer_with(CHATML))
    assert "has another vocabulary" in refusal(server, path=str(other))


def test_a_server_without_tokenizer_is_taken_and_says_so(folder: Path) -> None:
    with (
        scoring_server(folder, has_tokenizer=False, max_model_len=None) as server,
        ServedScorer("taste", config_for(server)) as scorer,
    ):
        held = scorer.open()
    assert (held.has_vocabulary, held.max_length) == (False, None)


def test_a_server_that_adds_tokens_is_refused(folder: Path) -> None:
    with scoring_server(folder, appended=1) as server:
        assert "tokens read of" in refusal(server)


def test_a_model_with_two_outputs_is_refused(tmp_path: Path, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    two = save_model(tmp_path / "two", tokenizer, num_labels=2)
    with scoring_server(two) as server:
        assert "POST /classify: 2 outputs" in refusal(server, path=str(folder))
        with pytest.raises(ConfigError, match="has 2 outputs"):
            ServedScorer("taste", config_for(server))


def test_an_address_that_is_no_server_of_models_is_refused(server: ScoringServer) -> None:
    said = refusal(server, url=server.url + "/models/here")
    assert "no server of models (GET /v1/models: status 404); give the address without the path" in said


def test_other_weights_under_the_same_name_are_refused_until_they_have_a_version(
    server: ScoringServer, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    record = tmp_path / "served" / "taste.json"
    with ServedScorer("taste", config_for(server), record=record) as scorer:
        scorer.open()
        scorer.open()  # the same weights, again
    before = server.folder
    server.load(save_model(tmp_path / "other", tokenizer, seed=1))
    with (
        ServedScorer("taste", config_for(server, path=str(before)), record=record) as scorer,
        pytest.raises(ConfigError, match=r"reward_models\.taste\.version=None: .* holds other weights"),
    ):
        scorer.open()
    with ServedScorer("taste", config_for(server, version="2"), record=record, keeps=False) as scorer:
        scorer.open()
    assert Known.model_validate_json(record.read_bytes()).scores.keys() == {""}
    with ServedScorer("taste", config_for(server, version="2"), record=record) as scorer:
        scorer.open()
    scores = Known.model_validate_json(record.read_bytes()).scores
    assert scores.keys() == {"", "2"}
    assert scores[""] != scores["2"]


# ---- a server that is away ------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def test_a_server_that_is_not_there_is_named_with_its_address(folder: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    config = ServedRewardModel(url=url, model="taste", path=str(folder), patience_s=0.0)
    with (
        ServedScorer("taste", config) as scorer,
        pytest.raises(ServerAway, match=rf"reward_models\.taste\.url={url}: .*no connection.*start it, or mend"),
    ):
        scorer.open()


def test_a_server_that_starts_late_is_waited_for(folder: Path) -> None:
    port, started = free_port(), []
    config = ServedRewardModel(
        url=f"http://127.0.0.1:{port}", model="taste", path=str(folder), max_length=128, patience_s=30.0
    )

    def start() -> None:
        context = scoring_server(folder, port)
        started.append((context, context.__enter__()))

    timer = Timer(0.5, start)
    timer.start()
    try:
        with ServedScorer("taste", config) as scorer:
            assert scorer.scores(TEXTS) == pytest.approx(local_scores(folder, TEXTS), abs=1e-5)
    finally:
        timer.join()
        for context, _ in started:
            context.__exit__(None, None, None)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_fails_in_the_middle_is_waited_for_and_the_scores_are_the_same(
    server: ScoringServer, folder: Path, status: int
) -> None:
    server.failing, server.failing_after = status, 4
    with ServedScorer("taste", config_for(server, concurrency=2, patience_s=30.0)) as scorer:
        Timer(0.5, lambda: setattr(server, "failing", None)).start()
        assert scorer.scores(TEXTS) == pytest.approx(local_scores(folder, TEXTS), abs=1e-5)


@pytest.mark.parametrize("fault", ["away", "hanging"])
@pytest.mark.parametrize("moment", ["at the start", "while it scores"])
def test_a_stage_that_is_asked_to_stop_leaves_a_server_that_gives_nothing(
    server: ScoringServer, monkeypatch: pytest.MonkeyPatch, fault: str, moment: str
) -> None:
    """Ctrl-C waited for as long as the server was waited for, and the terminal said nothing of it."""
    monkeypatch.setattr(waiting, "QUIET_S", 0.3)
    told: list[str] = []
    asked = Event()
    config = config_for(server, patience_s=60.0, timeout_s=60.0)
    with ServedScorer("taste", config, waiting=Waiting(told.append, asked.is_set)) as scorer:
        if moment == "while it scores":
            scorer.open()
        if fault == "away":
            server.failing = 503
        else:
            server.sleep_s = 30.0
        Timer(0.5, asked.set).start()
        begun = time.monotonic()
        with pytest.raises(StageStopped, match=r"reward_models\.taste at"):
            scorer.open() if moment == "at the start" else scorer.scores(TEXTS)
    assert time.monotonic() < begun + 6
    server.sleep_s = 0.0
    if fault == "away":
        assert told == [
            f"reward_models.taste at {server.url} does not answer (status 503: as told); waiting up to 60 s"
        ]


def test_a_stop_is_no_fault_of_the_reward(server: ScoringServer) -> None:
    config = ModelRewardConfig.model_validate({"name": "taste", "kind": "reward_model", "model": "taste"})
    source = RewardModelSource(Path(server.folder), 128, served=config_for(server, patience_s=60.0))
    with build_rewards([config], {"taste": source}, Waiting(print, lambda: server.failing is not None)) as rewards:
        server.failing = 503
        with pytest.raises(StageStopped):
            score([problem("2")], [completion("2")], rewards)


def test_responses_are_unscored_with_the_reason_once_patience_is_over(server: ScoringServer) -> None:
    with ServedScorer("taste", config_for(server, patience_s=0.2, concurrency=4)) as scorer:
        scorer.open()
        server.failing = 503
        assert scorer.scores(TEXTS) == [Unscored("server away for 0.2 s")] * len(TEXTS)
        server.failing = None  # what it is asked after it came back is scored
        assert not any(isinstance(value, Unscored) for value in scorer.scores(TEXTS))


def test_a_server_that_hangs_counts_as_away(server: ScoringServer) -> None:
    with ServedScorer("taste", config_for(server, timeout_s=0.2)) as scorer:
        scorer.open()
        server.sleep_s = 1.0
        assert scorer.scores(TEXTS[:2]) == [Unscored("server away for 0 s")] * 2


def test_a_server_that_comes_back_with_other_weights_stops_the_stage(
    server: ScoringServer, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    record = tmp_path / "taste.json"
    with ServedScorer("taste", config_for(server, patience_s=30.0), record=record) as scorer:
        scorer.open()
        server.failing = 503
        server.load(save_model(tmp_path / "other", tokenizer, seed=1))
        Timer(0.4, lambda: setattr(server, "failing", None)).start()
        with pytest.raises(RewardError, match="holds other weights"):
            scorer.scores(TEXTS[:2])


def test_a_request_that_the_server_refuses_leaves_its_response_unscored(server: ScoringServer) -> None:
    with ServedScorer("taste", config_for(server)) as scorer:
        scorer.open()
        server.names = ("other",)
        assert scorer.scores(TEXTS[:1]) == [Unscored("status 404")]


# ---- replies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (None, "no scores in the reply"),
        ({"data": []}, "no scores in the reply"),
        ({"data": [{"embedding": [1.0]}]}, "no scores in the reply"),
        ({"data": [{"probs": ["1"]}]}, "no scores in the reply"),
        ({"data": [{"probs": [1.0]}, {"probs": [1.0]}]}, "no scores in the reply"),
        ({"data": [{"probs": [0.1, 0.9]}]}, "2 outputs"),
        ({"data": [{"probs": [1.0]}], "usage": {"prompt_tokens": 4}}, "4 tokens read of 3"),
    ],
)
def test_a_reply_without_one_score_for_each_sequence_is_none(body: Any, reason: str) -> None:
    assert values_of(body, [3]) == Unscored(reason)


def test_a_reply_without_usage_is_enough() -> None:
    assert values_of({"data": [{"probs": [-1.25]}]}, [3]) == [-1.25]


def test_an_endless_reply_is_not_read_to_its_end(server: ScoringServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with ServedScorer("taste", config_for(server)) as scorer:
        scorer.open()
        monkeypatch.setattr(server, "_classified", lambda body: {"data": "x" * 2 * MAX_REPLY_BYTES})
        assert scorer.scores(TEXTS[:1]) == [Unscored("an endless or broken reply")]


def test_patience_is_counted_from_the_first_failure_and_anew_after_an_answer() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    patience = Patience(2.0, "it", clock=lambda: now[0], sleep=sleep)
    tries = 0
    while patience.lasts("no connection"):
        tries += 1
    assert sum(slept) == pytest.approx(2.0)
    assert slept == sorted(slept[:-1]) + slept[-1:]  # growing pauses, the last one up to the end
    assert not patience.lasts("no connection")  # no second wait of two seconds
    patience.answered(now[0] - 1)  # to what was asked before: it was on its way
    assert not patience.lasts("no connection")
    patience.answered(now[0] + 1)
    assert patience.lasts("no connection")
