from functools import partial

import pytest

from configs.errors import RewardError
from configs.reader import load_config
from configs.records import Completion, Policy, Score
from configs.schema.config import Config
from configs.schema.rewards import OutcomeRewardConfig
from grpo_train.measuring import evaluation
from grpo_train.measuring.evaluation import evaluate, num_responses
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.sampling.generation import sample
from reward_training.reward import Unscored
from reward_training.scorer import build_rewards
from tests.grpo_train.conftest import make_problem
from tests.paths import TINY

NUMBER = 12


@pytest.fixture
def config() -> Config:
    overrides = ["evaluation.num_samples=4", "evaluation.checker=digits", "evaluation.num_examples=2"]
    return load_config(TINY, overrides)


def loaded(policy):
    return load_policy(policy.path, device="cpu")[0]


def measure(tiny, config, *, round_index=1, policy_id="p", initial=None):
    model, tokenizer = tiny
    problems = {
        "dev": [make_problem(f"dev {i}", split="dev") for i in range(NUMBER)],
        "test": [make_problem(f"test {i}", split="test") for i in range(NUMBER)],
    }
    with build_rewards([*config.rewards, *config.evaluation.rewards], {}) as rewards:
        return evaluate(
            partial(sample, model, tokenizer), problems, policy=Policy(path="p", id=policy_id, round=0),
            initial_policy=initial, load=loaded, rewards=rewards, config=config, round_index=round_index,
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


# ---- what could not be scored ---------------------------------------------------------------------------------------


class Failing:
    """A checker that calls right what it can score; of each problem's responses, greedy first, it scores those in `scores`."""

    name, weight = "digits", 1.0

    def __init__(self, can_score):
        self.can_score = can_score

    def __call__(self, problems, completions):
        return [
            1.0 if self.can_score(p, c) else Unscored("service down")
            for p, c in zip(problems, completions, strict=True)
        ]


def measure_by(checker, tiny, config, share=1.0):
    model, tokenizer = tiny
    settings = config.combination.model_copy(update={"max_unscored_share": share})
    problems = {split: [make_problem(f"{split} {i}", split=split) for i in range(8)] for split in ("dev", "test")}
    return evaluate(
        partial(sample, model, tokenizer), problems, policy=Policy(path="p", id="p", round=0), initial_policy=None,
        load=loaded, rewards=[checker], round_index=1,
        config=config.model_copy(update={"combination": settings}),
    )  # fmt: skip


def number_of(problem):
    return int(problem.prompt[0]["content"].split()[-1])


def test_half_unscored_leaves_the_accuracy_of_the_other_half(tiny, config):
    """Unscored responses counted as wrong: 0.5 on 8 problems, all of whose scored responses are right."""
    report = measure_by(Failing(lambda p, c: number_of(p) % 2), tiny, config).reports["dev"]
    for metric in ("greedy_accuracy", "greedy/digits", "sampled/digits", "pass_at_1", "pass_at_4", "maj_at_4"):
        assert (report.values[metric].estimate, report.values[metric].n) == (1.0, 4), metric
    assert report.values["response_length"].n == 8
    assert report.unscored == {"digits": {"service down": 20}}  # 4 problems of 1 greedy response and 4 samples


def test_nothing_scored_is_no_accuracy_at_all(tiny, config):
    """It was 0.0 with n = 8."""
    result = measure_by(Failing(lambda p, c: False), tiny, config)
    assert set(result.reports["dev"].values) == {"response_length", "truncated_share"}
    assert all(row["unscored"] == {"digits": {"service down": 5}} for row in result.rows)


def test_pass_at_k_is_of_the_samples_that_were_scored(tiny, config):
    # of the 4 samples the first two are scored: pass@1 and pass@2 are known, pass@4 and maj@4 are not
    row = measure_by(Failing(lambda p, c: c.index in (1, 2)), tiny, config).rows[0]
    assert (row["pass_at_1"], row["pass_at_2"], row["sampled/digits"]) == (1.0, 1.0, 1.0)
    assert not {"greedy_accuracy", "greedy/digits", "pass_at_4", "maj_at_4"} & row.keys()
    assert row["unscored"] == {"digits": {"service down": 3}}


def test_an_evaluation_stops_where_too_much_of_one_split_is_unscored(tiny, config):
    only_dev = Failing(lambda p, c: p.split == "test" or number_of(p) != 3)
    measure_by(only_dev, tiny, config, share=0.125)
    with pytest.raises(RewardError, match=r"'digits' could not score 5 of 40 completions on dev .*service down"):
        measure_by(only_dev, tiny, config, share=0.12)


def test_a_report_of_all_that_was_scored_tells_of_nothing_unscored(tiny, config):
    result = measure(tiny, config)
    assert result.reports["dev"].unscored == {}
    assert not any("unscored" in row for row in result.rows)
