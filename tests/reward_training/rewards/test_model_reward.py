"""The reward from a reward model: calibration, and conversations that are too long."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedTokenizerFast

from configs.errors import ConfigError
from configs.records import Completion, Problem, TemplateSettings
from configs.schema.rewards import ModelRewardConfig
from reward_training.reward import Unscored
from reward_training.reward_models.scores import CALIBRATION, save_calibration
from reward_training.scorer import RewardModelSource, build_rewards, score
from tests.reward_training.transformer.templates import DATED, STRICT, tokenizer_with

Make = Callable[..., Completion]
MakeProblem = Callable[..., Problem]
CONFIG = ModelRewardConfig(name="quality", model="judge", weight=0.5)


def save_model(folder: Path, tokenizer: PreTrainedTokenizerFast, num_labels: int = 1) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, num_labels=num_labels, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture
def frozen(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    return save_model(tmp_path / "frozen", tokenizer)


def values(source: RewardModelSource, problems: list[Problem], completions: list[Completion]) -> list[float | Unscored]:
    with build_rewards([CONFIG], {"judge": source}) as (reward,):
        return list(reward(problems, completions))


def test_frozen_model_gives_raw_scores_and_a_trained_one_calibrated_ones(
    frozen: Path, make_problem: MakeProblem, make_completion: Make
) -> None:
    problems, completions = [make_problem()] * 3, [make_completion(text) for text in ("5", "6", "five!")]
    source = RewardModelSource(frozen, max_length=64)
    raw = [float(value) for value in values(source, problems, completions)]
    assert len(set(raw)) == 3
    save_calibration(frozen, [1.0, 5.0])  # mean 3, deviation 2
    assert values(source, problems, completions) == pytest.approx([(value - 3) / 2 for value in raw])


def test_too_long_a_conversation_is_unscored(frozen: Path, make_problem: MakeProblem, make_completion: Make) -> None:
    source = RewardModelSource(frozen, max_length=20)
    problems, completions = [make_problem()] * 2, [make_completion("5"), make_completion("5" * 30)]
    with build_rewards([CONFIG], {"judge": source}) as rewards:
        first, second = score(problems, completions, rewards)
    assert first.parts["quality"] is not None
    assert first.total == 0.5 * first.parts["quality"]
    assert second.parts == {"quality": None}
    assert second.unscored == {"quality": "over max_length=20 tokens"}


def test_a_model_scores_the_text_with_its_marks_as_in_the_pairs_it_learns_from(
    frozen: Path, make_problem: MakeProblem, make_completion: Make
) -> None:
    """The mark that the prompt opened is no part of the text, here or in a pair."""
    texts, source = ["hm</think>5", "hm5"], RewardModelSource(frozen, max_length=64)
    plain = values(source, [make_problem()] * 2, [make_completion(text) for text in texts])
    begun = values(source, [make_problem()] * 2, [make_completion(text, begun="<think>") for text in texts])
    assert begun == plain
    assert plain[0] != plain[1]


def test_two_rewards_may_share_a_model(frozen: Path, make_problem: MakeProblem, make_completion: Make) -> None:
    configs = [CONFIG, CONFIG.model_copy(update={"name": "again"})]
    with build_rewards(configs, {"judge": RewardModelSource(frozen, max_length=64)}) as rewards:
        (only,) = score([make_problem()], [make_completion("5")], rewards)
    assert only.parts["quality"] == only.parts["again"]


def test_model_with_two_outputs_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    folder = save_model(tmp_path / "two", tokenizer, num_labels=2)
    with (
        pytest.raises(ConfigError, match="has 2 outputs; use a sequence classifier with one output"),
        build_rewards([CONFIG], {"judge": RewardModelSource(folder, max_length=64)}),
    ):
        pass


def test_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = RewardModelSource(tmp_path / "absent", max_length=64)
    with pytest.raises(ConfigError, match="absent"), build_rewards([CONFIG], {"judge": source}):
        pass


def test_model_that_scores_all_alike_is_centred(tmp_path: Path) -> None:
    save_calibration(tmp_path, [2.0, 2.0])
    assert '"std": 1e-06' in (tmp_path / CALIBRATION).read_text()


def test_a_response_that_the_chat_template_refuses_is_unscored(
    tmp_path: Path, make_problem: MakeProblem, make_completion: Make
) -> None:
    """It raised in the middle of training, where a policy wrote nothing."""
    source = RewardModelSource(save_model(tmp_path, tokenizer_with(STRICT)), max_length=64)
    asked = make_problem(prompt=[{"role": "user", "content": "2 + 3 = ?"}])
    first, second, third = values(source, [asked] * 3, [make_completion(text) for text in ("5", "", "6")])
    assert second == Unscored("its chat template does not take the response")
    assert [first, third] == pytest.approx(values(source, [asked] * 2, [make_completion("5"), make_completion("6")]))


def test_a_reward_model_renders_on_the_run_date(
    tmp_path: Path, make_problem: MakeProblem, make_completion: Make
) -> None:
    folder = save_model(tmp_path, tokenizer_with(DATED))
    asked = make_problem(prompt=[{"role": "user", "content": "2 + 3 = ?"}])
    sources = [
        RewardModelSource(folder, max_length=128, template=TemplateSettings(date=datetime.date(2024, 2, day)))
        for day in (28, 28, 29)
    ]
    first, again, other = (values(source, [asked], [make_completion("5")]) for source in sources)
    assert first == again
    assert first != other
