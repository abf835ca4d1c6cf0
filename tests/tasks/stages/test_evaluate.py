"""What an evaluation says of the responses that it could not score."""

from configs.records import Estimate, EvalReport
from tasks.stages.evaluate import _as_json, estimates, unscored

ALL = Estimate(estimate=0.5, low=0.25, high=0.75, n=8)


def report(**reasons: dict[str, int]) -> EvalReport:
    return EvalReport(policy_id="p", split="dev", values={"greedy_accuracy": ALL}, unscored=reasons)


def test_unscored_responses_are_told_by_split_reward_and_reason() -> None:
    reports = {"dev": report(kind={"timeout": 3, "no verdict": 1}), "test": report()}
    [told] = unscored(reports)
    assert told.startswith(
        "evaluation on dev: reward 'kind' could not score 4 responses {'timeout': 3, 'no verdict': 1}"
    )
    assert estimates(reports) == {
        "evaluation/dev/greedy_accuracy": 0.5,
        "evaluation/test/greedy_accuracy": 0.5,
        "evaluation/dev/unscored/kind": 4.0,
    }
    assert _as_json(reports["dev"])["unscored"] == {"kind": {"timeout": 3, "no verdict": 1}}


def test_where_all_was_scored_the_report_is_as_before() -> None:
    assert _as_json(report()) == {"policy_id": "p", "split": "dev", "values": {"greedy_accuracy": ALL.model_dump()}}
    assert EvalReport.model_validate(_as_json(report())) == report()
