import pytest

from configs.reader import load_config
from configs.records import Completion, Policy, Score
from configs.schema.config import Config
from configs.schema.rewards import OutcomeRewardConfig
from grpo_train.measuring import evaluation
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


def completion(text, begun=""):
    return Completion(
        problem_key="p", index=0, prompt_ids=[], token_ids=[1], text=text, begun=begun, finish_reason="stop",
        logprobs=[0.0], policy_id="x", step=0, seed=0,
    )  # fmt: skip


def majority(checker: dict, texts: list[str], right: list[bool], begun: str = "") -> float:
    rewards = [OutcomeRewardConfig.model_validate({"name": "correct", **checker})]
    config = load_config(TINY).model_copy(update={"rewards": rewards})
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"checker": "correct"})})
    scores = [Score(parts={"correct": float(value)}, total=0.0) for value in [False, *right]]
    answered = evaluation._Answered(
        make_problem("What is 3 + 12?", "15"), [completion(text, begun) for text in ["", *texts]], scores
    )
    return evaluation._row(answered, config)[f"maj_at_{len(texts)}"]


def test_samples_that_only_repeat_the_question_do_not_vote():
    """The vote was taken without the prompt, by which an echo is told from an answer: +12 had three votes against two."""
    texts = ["What is 3 + 12", "what is 3 + 12", "What is 3 + 12", "It is 15.", "15"]
    assert majority({"strict": True}, texts, [False, False, False, True, True]) == 1.0
    assert majority({"extract": "final"}, texts, [False, False, False, True, True]) == 1.0


def test_a_thought_does_not_vote():
    texts = ["12? 12!", "12? 12!", "12</think>15"]
    assert majority({"extract": "final"}, texts, [False, False, True], begun="<think>") == 1.0


@pytest.mark.parametrize(("checker", "value"), [("exact", 1.0), ("numeric", 1.0), ("math", 1.0), ("regex", 0.0)])
def test_numbers_vote_by_their_value_where_the_checker_compares_values(checker, value):
    # 12 has two votes; 15 has three if its notations count as one
    texts, right = ["12", "12", "15", "15.0", "15.00"], [False, False, True, True, True]
    assert majority({"checker": checker, "pattern": "x" if checker == "regex" else None}, texts, right) == value


def test_responses_at_fault_are_counted_and_their_reasons_kept():
    config = load_config(TINY)
    scores = [Score(parts={config.checkers[0]: 1.0}, total=1.0), Score(parts={config.checkers[0]: 0.0}, total=0.0)]
    faulty = Score(parts={config.checkers[0]: 0.0}, faults={config.checkers[0]: "timeout after 5 s"}, total=0.0)
    entry = evaluation._Answered(make_problem("?"), [completion(text) for text in "5678"], [*scores, faulty, faulty])
    row = evaluation._row(entry, config)
    assert (row["at_fault_share"], row["faults"]) == (0.5, {"timeout after 5 s": 2})
    assert row["pass_at_1"] == 0.0
    assert "faults" not in evaluation._row(evaluation._Answered(entry.problem, entry.completions[:2], scores), config)
    report = evaluation._report("p", "train", [row], config, 1)
    assert report.values["at_fault_share"].estimate == 0.5
    assert "faults" not in report.values


def test_number_of_responses(config):
    assert num_responses(config, 10) == 50


def test_each_problem_is_judged_by_the_checker_of_its_source():
    mixed = load_config(TINY, ["rewards.0.sources=[test]", "problems.sources.0.source=test"])
    scores = [Score(parts={"correct": 1.0, "digits": 0.0}, total=1.0)] * 3
    entry = evaluation._Answered(make_problem("?"), [completion(text) for text in "567"], scores)
    row = evaluation._row(entry, mixed, is_mixed=True)
    assert (row["greedy_accuracy"], row["greedy_accuracy/test"], row["pass_at_2"]) == (1.0, 1.0, 1.0)
    other = entry.problem.model_copy(update={"source": "style"})
    unchecked = [Score(parts={"digits": 0.0}, total=1.0)] * 3
    row = evaluation._row(evaluation._Answered(other, entry.completions, unchecked), mixed, is_mixed=True)
    assert set(row) == {
        "split", "problem_key", "source", "response_length", "truncated_share", "greedy/digits", "sampled/digits",
    }  # fmt: skip
