import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from configs.disk.files import Journal, write_json
from configs.records import EvalReport
from tasks.runs.run_records import read_run_records
from tasks.runs.times import CallTime, RunTime, note_call, run_time
from tasks.showing.figures import over_distance
from tasks.showing.report import _at_fault, _changed, duration, estimate, number, write_report
from tests.tasks.showing.synthetic_run import HOSTILE, RIGHT, write_problems, write_run


class Page(HTMLParser):
    """What a browser makes of the page: element names, attributes, numbers and the texts of each element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.numbers: list[float] = []
        self.texts: list[str] = []
        self.pre: list[str] = []
        self._open_pre = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        self.numbers += [float(value or "nan") for name, value in attrs if (tag, name) == ("data", "value")]
        if tag == "pre":
            self._open_pre = True
            self.pre.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self._open_pre = False

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._open_pre:
            self.pre[-1] += data


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its report; only read."""
    folder = write_run(tmp_path_factory.mktemp("full"))
    write_report(folder)
    return folder


def test_responses_at_fault_have_a_chart_only_where_there_are_any(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    title = "share of responses at fault"
    records = read_run_records(folder)
    assert _at_fault(records) == {}
    journal = Journal(folder / "round_001" / "policy" / "journal.jsonl")
    for name, value in (("correct", 0.25), ("quality", 0.0)):
        journal.write(21, {f"objective/{name}/at_fault_share": value})
    assert _at_fault(read_run_records(folder)) == {"correct": "objective/correct/at_fault_share"}
    write_report(folder)
    assert title in (folder / "report.html").read_text(encoding="utf-8")


def _page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def _words(page: Page) -> str:
    return re.sub(r"\s+", " ", " ".join(page.texts))


def test_numbers_on_the_page_are_those_in_the_files(full: Path) -> None:
    page = _page(full / "report.html")
    shown = set(page.numbers)
    for round_index in range(3):
        reports = json.loads((full / f"round_00{round_index}/evaluate/report.json").read_text())
        for split, metric in [("test", "greedy_accuracy"), ("dev", "greedy_accuracy"), ("test", "pass_at_4")]:
            value = EvalReport.model_validate(reports[split]).values[metric]
            assert {value.estimate, value.low, value.high} <= shown
    for round_index in (1, 2):
        model = json.loads((full / f"round_00{round_index}/reward_model/quality/report.json").read_text())
        assert {model["accuracy"]["estimate"], model["accuracy"]["low"], model["margin"]} <= shown
        decision = json.loads((full / f"round_00{round_index}/promote/decision.json").read_text())
        assert {decision["gain"], decision["low"], decision["high"]} <= shown


def test_page_says_where_the_tokens_of_training_went(full: Path) -> None:
    # 1200 useful, 100 truncated, 700 dead of 2000; 550 of 5000 positions were padding
    assert {2000.0, 0.6, 0.05, 0.35, 0.11} <= set(_page(full / "report.html").numbers)


def test_outcome_names_the_champions_paired_gain_on_test(full: Path) -> None:
    records = read_run_records(full)
    gain = records.paired_gain("test", "greedy_accuracy")
    assert gain is not None
    # 14 of 40 against 4 of 40, on the same problems
    assert (gain.estimate, gain.n) == ((RIGHT[1] - RIGHT[0]) / 40, 40)
    assert 0 < gain.low < gain.estimate < gain.high
    words = _words(_page(full / "report.html"))
    assert "Greedy accuracy on test rose from 0.100 to 0.350 over 40 problems: a paired gain of +0.250" in words


def test_champion_is_the_last_promoted_round(full: Path) -> None:
    champion = read_run_records(full).champion
    assert champion is not None
    assert champion.index == 1


def test_text_of_a_policy_is_shown_and_never_becomes_markup(tmp_path: Path) -> None:
    page = _page(write_report(write_run(tmp_path, hostile=HOSTILE)))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert HOSTILE.replace("\ud800", "?") in [text.removeprefix("\n") for text in page.pre]


def test_page_loads_nothing(full: Path) -> None:
    page = _page(full / "report.html")
    assert {"img", "link", "iframe", "object", "script"}.isdisjoint(page.tags)
    assert all(address.startswith("#") for address in page.addresses)
    assert "default-src 'none'" in (full / "report.html").read_text()


def test_unfinished_run_shows_what_is_missing_as_missing(tmp_path: Path) -> None:
    page = _page(write_report(write_run(tmp_path, up_to=0)))
    words = _words(page)
    assert "this run is not finished" in words
    assert "No challenger was promoted so far" in words
    for sentence in (
        "No step was logged yet",
        "No policy was trained yet",
        "No reward model was trained yet",
        "No challenger was judged yet",
    ):
        assert sentence in words
    # round 0's KL from the initial policy and nothing else is a measured zero
    assert [value for value in page.numbers if value == 0.0] == [0.0]


def test_run_without_any_round_has_a_page(tmp_path: Path) -> None:
    page = _page(write_report(write_run(tmp_path, up_to=-1)))
    assert "Nothing was measured yet." in _words(page)
    assert page.numbers == []
    assert "svg" not in page.tags


def test_round_in_training_shows_its_steps_and_no_evaluation(tmp_path: Path) -> None:
    write_run(tmp_path)
    for path in (tmp_path / "round_002").glob("*/*"):
        if path.parent.name in ("evaluate", "promote", "regenerate"):
            path.unlink()
    records = read_run_records(tmp_path)
    assert len(records.rounds[2].steps("reward/mean")) == 20
    assert records.rounds[2].estimate("test", "greedy_accuracy") is None
    assert records.rounds[2].decision is None
    row = re.search(r"<tr>\s*<td>2</td>.*?</tr>", write_report(tmp_path).read_text(), re.DOTALL)
    assert row is not None
    assert row[0].count("missing") >= 6  # policy, standing, and the estimates


def test_watch_rules_are_read_off_the_journal_again(full: Path) -> None:
    # entropy is 0.9 - 0.016 t: under 0.3 from t = 38 on, so at steps 18 and 19 of round 2; patience is 2
    records = read_run_records(full)
    [(round_index, alarm)] = records.alarms()
    assert (round_index, alarm.step, alarm.rule.metric) == (2, 19, "policy/entropy")
    assert "round 2: policy/entropy is 0.276 at step 19" in _words(_page(full / "report.html"))


def test_advantage_shares_are_those_of_the_finished_training(full: Path) -> None:
    records = read_run_records(full)
    assert records.rounds[0].advantage_share("quality") is None
    assert records.rounds[1].advantage_share("quality") == 0.1875
    assert {0.8125, 0.1875} <= set(_page(full / "report.html").numbers)


def test_training_that_a_watch_rule_ended_is_said(tmp_path: Path) -> None:
    write_run(tmp_path)
    result = {"num_updates": 7, "stopped_by": "policy/entropy is 0.01 at step 7", "advantage_share": {}}
    (tmp_path / "round_002/policy/result.json").write_text(json.dumps(result))
    words = _words(_page(write_report(tmp_path)))
    assert "round 2 was ended early: policy/entropy is 0.01 at step 7" in words


def test_both_texts_stand_side_by_side_with_their_verdicts(tmp_path: Path) -> None:
    write_run(tmp_path)
    path = tmp_path / "round_001/evaluate/examples.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[::-1]).replace("4 + 4 is 8", "It is 14") + "\n")
    words = _words(_page(write_report(tmp_path)))
    # problem 10 is wrong before (4 are right) and right after (14 are)
    assert "answer: 14 before · wrong 4 + 4 is 8 2 samples" in words
    assert "after · right It is 14 2 samples" in words


def test_report_needs_no_manifest_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        (number(0.1234567), '<data value="0.1234567">0.123</data>'),
        (number(-0.5, 2, signed=True), '<data value="-0.5">-0.50</data>'),
        (number(-0.0004), '<data value="-0.0004">0.000</data>'),
        (number(None), '<span class="missing" title="not there">–</span>'),
        (estimate(None), '<span class="missing" title="not there">–</span>'),
        (duration(99.4), '<data value="99.4">99 s</data>'),
        (duration(150.0), '<data value="150.0">2.5 min</data>'),
    ],
)
def test_numbers_are_rounded_for_the_eye_only(html: str, text: str) -> None:
    assert html == text


def test_reward_model_made_by_hand_stands_apart_from_the_rounds_own(tmp_path: Path) -> None:
    write_run(tmp_path)
    own = tmp_path / "round_001" / "reward_model" / "quality" / "report.json"
    by_hand = tmp_path / "round_001" / "reward_model_by_hand" / "quality" / "report.json"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_text(own.read_text().replace("0.7125", "0.8375"))
    page = _page(write_report(tmp_path))
    assert {0.7125, 0.8375} <= set(page.numbers)
    assert "quality, by hand after the round" in _words(page)


def test_reward_model_and_checker_are_shown_by_distance_and_objectives_by_round(full: Path) -> None:
    words = _words(_page(full / "report.html"))
    for title in (
        "quality by distance",
        "correct by distance",
        "quality against correct, test",
        "sqrt(KL), nats a response",
    ):
        assert title in words


def test_distance_is_the_root_of_a_responses_kl_at_the_steps_that_measured_it(full: Path) -> None:
    records = read_run_records(full)
    panel = over_distance(records, "quality", "objective/quality/mean", 0)
    assert panel is not None
    axes = Figure().subplots()
    panel.draw(axes)
    # by hand for step 10 of round 1: KL 0.02 nats a token, 30 - 2 + 0.4 sin(17) tokens
    length = 28 + 0.4 * math.sin(17)
    assert axes.lines[0].get_xdata()[0] == pytest.approx(math.sqrt(0.02 * length))
    assert len(axes.lines[0].get_xdata()) == 4  # two steps of two rounds: too few for a curve
    assert len(axes.lines) == 1
    assert over_distance(records, "none", "objective/none/mean", 0) is None


def test_page_says_what_the_run_was_and_where_mlflow_has_it(tmp_path: Path) -> None:
    mlflow = {"tracking_uri": "sqlite:////w/mlflow.db", "experiment_id": "1", "run_id": "3f1afe89f8bd4849"}
    path = write_report(write_run(tmp_path), mlflow)
    words = _words(_page(path))
    assert "started 2026-03-01 03:35 UTC" in words
    assert "learning rate 1e-06" in words
    assert "versions torch 2.13.0; 2 threads" in words
    assert "run 3f1afe89 while regroup ui serves it" in words
    assert (
        'href="http://127.0.0.1:5000/#/experiments/1/runs/3f1afe89f8bd4849?workflowType=machine_learning"'
        in path.read_text()
    )


def test_page_says_where_rounds_start_anew(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    assert "starts anew" not in _words(_page(write_report(folder)))
    content = json.loads((folder / "run.json").read_bytes())
    content["config"]["policy"]["start_from"] = "given"
    (folder / "run.json").write_text(json.dumps(content))
    assert "KL coefficient 0; each round starts anew from the given policy" in _words(_page(write_report(folder)))


def test_a_report_that_was_written_while_mlflow_was_away_has_no_broken_link(tmp_path: Path) -> None:
    mlflow = {"tracking_uri": "http://127.0.0.1:5000", "experiment_id": None, "run_id": "3f1afe89f8bd4849"}
    text = write_report(write_run(tmp_path), mlflow).read_text()
    assert "/experiments/None" not in text


def test_the_same_files_make_the_same_page(tmp_path: Path) -> None:
    first = write_report(write_run(tmp_path)).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_problems_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    """Of 40 test problems the first 4, 14 and 12 are right in rounds 0, 1 and 2; round 2 is refused."""
    records = read_run_records(write_run(tmp_path))
    found = [
        (
            change.before.index,
            change.after.index,
            *map(len, (change.learned, change.unlearned, change.right, change.wrong)),
        )
        for change in _changed(records)
        if change.split == "test"
    ]
    assert found == [(0, 1, 10, 0, 4, 26), (1, 2, 0, 2, 12, 26)]
    assert "1 the given policy test 10 0 4 26" in _words(_page(write_report(tmp_path)))


def test_unscored_problems_are_in_no_count(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1)
    path = tmp_path / "round_001/evaluate/results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    del rows[0]["greedy_accuracy"]  # right in round 0
    rows[5]["greedy_accuracy"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [change, _] = _changed(read_run_records(tmp_path))
    assert [len(keys) for keys in (change.learned, change.unlearned, change.right, change.wrong)] == [9, 0, 3, 26]


def test_examples_of_what_was_learned_and_unlearned_have_both_texts(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_problems(tmp_path)
    words = _words(_page(write_report(tmp_path)))
    # the last comparison is round 2 against round 1: 12 and 13 were right before and are wrong after
    assert "Wrong before, right after No test problem of round 2 against round 1." in words
    assert "2 of 2 such test problems, the first ones whose texts were kept, of round 2 against round 1." in words
    assert "text 12 + 4 = answer: 16 before · right round_001 says 12 after · wrong round_002 says 12" in words


def test_examples_of_older_runs_are_among_the_kept_texts(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1)
    write_problems(tmp_path)
    for path in tmp_path.glob("round_*/evaluate/responses.jsonl"):
        path.unlink()
    words = _words(_page(write_report(tmp_path)))
    assert "1 of 10 such test problems" in words  # p10 of p3, p10 and p30


def test_time_of_all_calls_is_that_of_the_summary(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1)
    note_call(tmp_path, CallTime(call="a", whole=100, work=70))
    note_call(tmp_path, CallTime(call="b", whole=40, work=25))
    # six stages of 12.5 s stand: 75 s of the 95 s of work, so 20 s were lost, and 45 s were bookkeeping
    page = _page(write_report(tmp_path))
    assert run_time(tmp_path) == RunTime(whole=140.0, stages=75.0, lost=20.0, bookkeeping=45.0)
    assert {140.0, 20.0, 45.0} <= set(page.numbers)


def test_a_stage_that_was_copied_has_no_time_and_names_the_run_that_worked(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1)
    manifest = tmp_path / "round_000" / "evaluate" / "manifest.json"
    write_json(manifest, json.loads(manifest.read_text()) | {"copied_from": "another-run"})
    note_call(tmp_path, CallTime(call="a", whole=100, work=70))
    words = _words(_page(write_report(tmp_path)))
    assert "evaluate, copied from run another-run - " in words
    assert run_time(tmp_path) == RunTime(whole=100.0, stages=62.5, lost=7.5, bookkeeping=30.0, copied=12.5)
