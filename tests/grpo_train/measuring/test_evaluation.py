import pytest

from configs.reader import load_config
from configs.records import Policy
from configs.schema.config import Config
from grpo_train.measuring.evaluation import evaluate, num_responses
from grpo_train.policies.model import save_policy
from reward_training.scorer import build_rewards
from tests.grpo_train.conftest import make_problem
from tests.paths import TINY

NUMBER = 12


@pytest.fixture
def config() -> Config:
    overrides = ["evaluation.num_samples=4", "evaluation.checker=digits", "evaluation.num_examples=2"]
    return load_config(TINY, overrides)


def measure(tiny, config, *, round_index=1, policy_id="p", initial=None):
    model, tokenizer = tiny
    problems = {
        "dev": [make_problem(f"dev {i}", split="dev") for i in range(NUMBER)],
        "test": [make_problem(f"test {i}", split="test") for i in range(NUMBER)],
    }
    with build_rewards([*config.rewards, *config.evaluation.rewards], {}) as rewards:
        return evaluate(
            model, tokenizer, problems, policy_id=policy_id, initial_policy=initial, rewards=rewards, config=config,
            round_index=round_index,
        )  # fmt: skip


def test_reports_are_the_means_of_the_rows(tiny, config):
    result = measure(tiny, config)
    rows = [row for row in result.rows if row["split"] == "dev"]
    assert len(rows) == NUMBER
    for name, value in result.reports["dev"].values.items():
        assert value.estimate == pytest.approx(sum(row[name] for row in rows) / NUMBER)
        assert value.low <= value.estimate <= value.high
        assert value.n == NUMBER
    wanted = {"greedy_accuracy", "greedy/digits", "sampled/brief", "pass_at_1", "pass_at_2", "pass_at_4", "maj_at_4"}
    assert wanted | {"response_length", "truncated_share"} <= set(result.reports["dev"].values)


def test_pass_at_1_is_the_samples_accuracy_and_pass_at_k_rises(tiny, config):
    for row in measure(tiny, config).rows:
        assert row["pass_at_1"] == pytest.approx(row["sampled/digits"])
        assert row["pass_at_1"] <= row["pass_at_2"] <= row["pass_at_4"]
        assert row["greedy_accuracy"] == row["greedy/digits"]


def test_the_same_policy_measures_the_same_in_every_round(tiny, config):
    assert measure(tiny, config, round_index=1).rows == measure(tiny, config, round_index=2).rows


def test_kl_is_zero_for_the_initial_policy_itself_and_absent_without_one(tiny, config):
    own = Policy(path="unused", id="p", round=0)
    assert {row["kl_initial"] for row in measure(tiny, config, initial=own).rows} == {0.0}
    assert "kl_initial" not in measure(tiny, config).rows[0]


def test_kl_from_equal_weights_under_another_name_is_zero_up_to_rounding(tiny, config, tmp_path):
    saved = save_policy(*tiny, tmp_path / "policy", round_index=0)
    result = measure(tiny, config, policy_id="another", initial=saved)
    assert result.reports["test"].values["kl_initial"].estimate == pytest.approx(0.0, abs=1e-5)


def test_kl_is_measured_on_the_first_problems_of_each_split(tiny, config):
    own = Policy(path="unused", id="p", round=0)
    evaluation = config.evaluation.model_copy(update={"num_kl_problems": 5})
    result = measure(tiny, config.model_copy(update={"evaluation": evaluation}), initial=own)
    assert [report.values["kl_initial"].n for report in result.reports.values()] == [5, 5]
    assert sum("kl_initial" in row for row in result.rows) == 10


def test_examples_show_prompt_greedy_and_samples_of_each_split(tiny, config):
    examples = measure(tiny, config).examples
    assert [example["split"] for example in examples] == ["dev", "dev", "test", "test"]
    assert all(len(example["samples"]) == 4 for example in examples)


def test_number_of_responses(config):
    assert num_responses(config, 10) == 50
