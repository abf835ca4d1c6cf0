"""A small reward model learns an easy preference, reproducibly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from configs.disk.files import weights_id
from configs.errors import ConfigError, StageStopped, TrainingDiverged
from configs.records import PreferencePair
from configs.schema.reward_models import OutcomeLabeler, TrainedRewardModel
from reward_training.reward_models.check import check_reward_model
from reward_training.reward_models.scores import RewardModelScorer, read_calibration
from reward_training.reward_models.train import micro_batch_size, train_reward_model
from reward_training.reward_models.trainer import METRICS
from reward_training.transformer.rendering import conversation_text

Trained = tuple[Path, list[dict[str, float]]]

CONFIG = TrainedRewardModel(
    labeler=OutcomeLabeler(reward="correct"), learning_rate=1e-2, epochs=2, batch_size=8, min_pairs=16, max_length=128
)


def make_pairs(first: int, count: int) -> list[PreferencePair]:
    """Responses with a `z` are better than those with a `q`; two pairs a problem."""
    return [
        PreferencePair(
            problem_key=f"problem-{number}",
            prompt=[{"role": "user", "content": f"say {number}"}],
            chosen=f"z{number % 7}{'a' * extra}",
            rejected=f"{'b' * extra}q{number % 5}",
            margin=1.0,
            objective="taste",
            labeler="outcome",
            sources=("a", "b"),
            round=1,
            split="train",
        )
        for number in range(first, first + count)
        for extra in (1, 4)
    ]


def train(
    folder: Path, base: Path, *, seed: int = 0, config: TrainedRewardModel = CONFIG, stop_at: int | None = None
) -> list[dict[str, float]]:
    steps: list[dict[str, float]] = []
    train_reward_model(
        make_pairs(0, 24),
        base=base,
        out_dir=folder,
        config=config,
        seed=seed,
        on_step=lambda step, metrics: steps.append({"step": step, **metrics}),
        should_stop=lambda: stop_at is not None and len(steps) + 1 >= stop_at,
    )
    return steps


@pytest.fixture(scope="module")
def trained(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(folder, policy_folder)


def test_training_reports_every_update(trained: Trained) -> None:
    _, steps = trained
    # 48 pairs x 2 epochs / 8 pairs an update = 12 updates
    assert [step["step"] for step in steps] == list(range(1, 13))
    assert all(set(METRICS.values()) <= step.keys() for step in steps)
    assert all(step["reward_model/grad_norm"] > 0 for step in steps)
    assert steps[-1]["reward_model/loss"] < steps[0]["reward_model/loss"]
    # the rate of each update: from the peak down, to the 0 that a thirteenth would have
    rates = [step["reward_model/learning_rate"] for step in steps]
    assert rates == pytest.approx([1e-2 * (12 - i) / 12 for i in range(12)])


def test_learns_a_preference_that_is_easy_to_see(trained: Trained) -> None:
    config = CONFIG.model_copy(update={"max_old_pairs": 7})
    report = check_reward_model(
        trained[0],
        make_pairs(100, 20),
        make_pairs(200, 20),
        config=config,
        num_train_pairs=48,
        num_replayed_pairs=5,
        seed=0,
    )
    assert report.accuracy is not None
    assert report.accuracy.estimate == 1.0
    assert report.accuracy.n == 20
    # Wilson's lower bound for 20 of 20: 1 / (1 + 1.96^2 / 20) = 0.839
    assert report.accuracy.low == pytest.approx(0.839, abs=1e-3)
    assert (report.num_train_pairs, report.num_held_out_pairs, report.num_replayed_pairs) == (48, 40, 5)
    assert report.margin is not None
    assert report.margin > 0
    assert report.length_correlation is not None
    assert report.old_accuracy is not None
    assert (report.old_accuracy.estimate, report.old_accuracy.n <= 7) == (1.0, True)
    assert report.calibration_error is not None
    assert 0 <= report.calibration_error <= 0.5
    assert report.canary_wins is not None
    assert report.canary_wins * 64 == pytest.approx(round(report.canary_wins * 64))  # 16 problems, 4 canaries each
    assert (report.accepted, report.reasons) == (True, [])
    assert report.id == weights_id(trained[0])


def test_same_seed_gives_the_same_weights(trained: Trained, policy_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(12345)  # whatever was drawn before
    assert train(tmp_path / "again", policy_folder) == trained[1]
    assert weights_id(tmp_path / "again") == weights_id(trained[0])


def test_other_seed_gives_other_weights(trained: Trained, policy_folder: Path, tmp_path: Path) -> None:
    train(tmp_path / "other", policy_folder, seed=1)
    assert weights_id(tmp_path / "other") != weights_id(trained[0])


def test_warm_start_goes_on_from_the_earlier_model(trained: Trained, tmp_path: Path) -> None:
    steps = train(tmp_path / "next", trained[0])
    assert weights_id(tmp_path / "next") != weights_id(trained[0])
    # a new head would start near log 2; the earlier model knows the preference
    assert steps[0]["reward_model/loss"] < 0.3 < trained[1][0]["reward_model/loss"]


def test_any_reader_of_the_folder_gets_the_same_scores(trained: Trained) -> None:
    """The end token was also the pad token: pooled by transformers, a padded chat was scored at an earlier token."""
    texts = conversations(trained[0])
    tokenizer = AutoTokenizer.from_pretrained(str(trained[0]))
    model = AutoModelForSequenceClassification.from_pretrained(str(trained[0])).eval()
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).logits.squeeze(-1).tolist()
    with RewardModelScorer(trained[0], max_length=128, precision="float32") as scorer:
        assert scorer.scores(texts) == pytest.approx(expected, abs=1e-4)


def test_scores_do_not_depend_on_the_rest_of_the_batch(trained: Trained) -> None:
    texts = conversations(trained[0])
    with RewardModelScorer(trained[0], max_length=128, precision="float32") as scorer:
        alone = [scorer.scores([text])[0] for text in texts]
        assert scorer.scores(texts) == pytest.approx(alone, abs=1e-4)
        assert scorer.scores(texts[::-1]) == pytest.approx(alone[::-1], abs=1e-4)
        assert scorer.scores([]) == []


def conversations(folder: Path) -> list[str]:
    """Rendered conversations of unequal length."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    rows = [(pair, text) for pair in make_pairs(50, 5) for text in (pair.chosen, pair.rejected, "", "z" * 30)]
    return [conversation_text(tokenizer, pair.prompt, text) for pair, text in rows]


def test_calibrated_scores_of_the_training_pairs_have_mean_0_and_deviation_1(
    trained: Trained,
) -> None:
    calibration = read_calibration(trained[0])
    assert calibration is not None
    with RewardModelScorer(trained[0], max_length=128) as scorer:
        pairs = make_pairs(0, 24)
        texts = [conversation_text(scorer.tokenizer, p.prompt, t) for p in pairs for t in (p.chosen, p.rejected)]
        values = torch.tensor(scorer.calibrated(scorer.scores(texts)))
    assert float(values.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(values.std(correction=0)) == pytest.approx(1.0, abs=0.02)


def test_scores_are_anchored_on_the_pairs_that_are_given_for_it(policy_folder: Path, tmp_path: Path) -> None:
    """Two models trained on different pairs give the anchors' responses the same mean and deviation."""
    anchors = make_pairs(100, 10)
    for number in (0, 24):
        folder = tmp_path / str(number)
        train_reward_model(
            make_pairs(number, 24),
            base=policy_folder,
            out_dir=folder,
            config=CONFIG,
            seed=0,
            on_step=lambda step, metrics: None,
            should_stop=lambda: False,
            anchors=anchors,
        )
        with RewardModelScorer(folder, max_length=128) as scorer:
            rows = [(p, t) for p in anchors for t in (p.chosen, p.rejected)]
            values = torch.tensor(
                scorer.calibrated(scorer.scores([conversation_text(scorer.tokenizer, p.prompt, t) for p, t in rows]))
            )
        assert float(values.mean()) == pytest.approx(0.0, abs=1e-3)
        assert float(values.std(correction=0)) == pytest.approx(1.0, abs=1e-3)


def test_stop_is_at_a_step_boundary_and_saves_nothing(policy_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StageStopped, match="after step 3"):
        train(tmp_path / "stopped", policy_folder, stop_at=3)
    assert not (tmp_path / "stopped").exists()


def test_loss_that_is_no_number_stops(policy_folder: Path, tmp_path: Path) -> None:
    poisoned = tmp_path / "poisoned"
    shutil.copytree(policy_folder, poisoned)
    weights = load_file(poisoned / "model.safetensors")
    weights["model.norm.weight"] *= 3e38
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingDiverged, match="reward_model/loss is nan at step 1; lower learning_rate"):
        train(tmp_path / "out", poisoned)
    assert not (tmp_path / "out").exists()


def test_pairs_that_are_too_long_are_left_out(policy_folder: Path, tmp_path: Path) -> None:
    pairs = make_pairs(0, 2)
    long = pairs[0].model_copy(update={"rejected": "q" * 500})
    seen: list[list[dict[str, float]]] = []
    for given in (pairs, [long, *pairs]):
        seen.append([])
        train_reward_model(
            given, base=policy_folder, out_dir=tmp_path / str(len(given)), config=CONFIG, seed=0,
            on_step=lambda step, metrics: seen[-1].append(metrics), should_stop=lambda: False,
        )  # fmt: skip
    assert seen[0] == seen[1] != []
    with pytest.raises(
        ConfigError, match=r"no pair of 1 fits into max_length=128 tokens: .* raise reward_models\.taste\.max_length"
    ):
        train_reward_model(
            [long], base=policy_folder, out_dir=tmp_path, config=CONFIG, seed=0,
            on_step=lambda step, metrics: None, should_stop=lambda: False,
        )  # fmt: skip


def test_base_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        train(tmp_path / "out", tmp_path / "nothing")


def test_weights_stay_float32(trained: Trained) -> None:
    assert {tensor.dtype for tensor in load_file(trained[0] / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize(("longest", "pairs"), [(10, 16), (128, 16), (129, 8), (100_000, 1)])
def test_passes_stay_within_their_tokens(longest: int, pairs: int) -> None:
    assert micro_batch_size(16, longest, 4096) == pairs  # 2 x 128 x 16 = 4096


def test_model_that_cannot_share_prompts_is_trained_on_separate_rows(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, sliding_window=8,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(str(tmp_path / "base"))
    tokenizer.save_pretrained(str(tmp_path / "base"))
    steps = train(tmp_path / "trained", tmp_path / "base")
    assert steps[-1]["reward_model/loss"] < steps[0]["reward_model/loss"]
    assert steps[-1]["reward_model/accuracy"] == 1.0
