"""A comparison of two methods with two seeds, whose runs were written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.disk.files import MANIFEST, digest_files, read_manifest, write_json, write_jsonl, write_manifest
from configs.errors import ConfigError
from configs.schema.comparing.compare import Comparison
from grpo_train.measuring.retention.changes import RetentionReport
from tasks.comparing.analysis import best_factors, best_of_each, compared, reachable, read_members, tokens_to
from tasks.comparing.members import read_member
from tasks.comparing.metrics import metrics
from tasks.comparing.page import render
from tasks.comparing.result import Compared
from tasks.comparing.tables import tables
from tasks.comparing.words import notes, verdicts
from tasks.runs.workspace import before_cold_start_folder
from tasks.showing.terminal import Terminal
from tests.tasks.comparing.made_up import comparison, write_member


def write_all(root: Path, given: Comparison) -> None:
    """grpo answers 1 and 2 of 4 test problems with seeds 0 and 1, rloo 2 and 3."""
    right = {("grpo", 0): [1, 0, 0, 0], ("grpo", 1): [1, 1, 0, 0], ("rloo", 0): [1, 1, 0, 0], ("rloo", 1): [1, 1, 1, 0]}
    dev = {("grpo", 0): (0.1, 0.5), ("grpo", 1): (0.1, 0.3), ("rloo", 0): (0.1, 0.6), ("rloo", 1): (0.1, 0.6)}
    for member in given.members():
        key, is_first = (member.method, member.seed), member.method == "grpo"
        write_member(
            root,
            member,
            test=right[key],
            dev=dev[key],
            tokens=(400, 700) if is_first else (500, 600),
            promoted=is_first,
            spent=key != ("rloo", 1),
            kl=0.25 if is_first else 0.5,
        )


@pytest.fixture
def result(tmp_path: Path) -> Compared:
    write_all(tmp_path, comparison())
    return compared(comparison(), read_members(tmp_path, comparison()))


def test_accuracies_are_of_the_trained_policies_and_spread_over_seeds(result: Compared) -> None:
    """0.25 and 0.5: mean 0.375 and std 0.25 / sqrt(2). rloo's were refused, so its champions are the given policies."""
    grpo, rloo = result.methods
    assert grpo.test_by_seed == [0.25, 0.5]
    assert (grpo.test, grpo.spread) == (0.375, pytest.approx(0.1767767))
    assert (rloo.test, rloo.champion, rloo.num_promoted, rloo.num_trained) == (0.625, 0.0, 0, 2)
    assert (grpo.champion, grpo.num_promoted) == (0.375, 2)
    assert (result.given, result.num_problems, result.metric) == (0.0, 4, "greedy_accuracy")


def test_the_gain_is_paired_by_seed_and_problem(result: Compared) -> None:
    """rloo - grpo is [0, 1, 0, 0] and [0, 0, 1, 0]: 0.25 with each seed, so over seeds exactly 0.25.

    Four drawn problems have none of the two with probability 1/16, more than 2.5%, so the other interval begins at 0.
    """
    grpo, rloo = result.methods
    assert grpo.gain is None
    assert rloo.gain is not None
    assert rloo.gain.over_seeds_and_problems.estimate == 0.25
    assert rloo.gain.over_seeds_and_problems.low == 0.0
    assert rloo.gain.over_seeds_and_problems.n == 8
    assert rloo.gain.over_seeds is not None
    assert (rloo.gain.over_seeds.low, rloo.gain.over_seeds.high) == (0.25, 0.25)
    assert not rloo.gain.is_shown
    [sentence] = verdicts(result)
    assert sentence.startswith("rloo against grpo: +0.250, no difference shown (over seeds and problems [+0.000, ")


def test_samples_to_reach_the_highest_that_all_methods_reach(result: Compared) -> None:
    """On dev grpo comes to (0.5 + 0.3) / 2 = 0.4 and rloo to 0.6: the target is 0.4, which grpo's second seed never reaches."""
    grpo, rloo = result.methods
    assert result.target == 0.4
    assert (grpo.num_reached, grpo.tokens_to_reach) == (1, 1100)
    assert (rloo.num_reached, rloo.tokens_to_reach) == (2, 1100)
    assert tokens_to([(0, 0.1), (1100, 0.3)], 0.4) is None


def test_the_target_is_the_least_of_what_methods_reach_at_their_best() -> None:
    """a falls from 0.5 to 0.2 and b ends at 0.4: min(0.5, 0.4). What the given policy has already is no target."""
    curves = {"a": [[(0, 0.1), (5, 0.5), (9, 0.2)]], "b": [[(0, 0.1), (5, 0.3), (9, 0.4)]]}
    assert reachable(curves, over=0.3) == 0.4
    assert reachable(curves, over=0.4) is None


def test_costs_are_means_over_seeds(result: Compared) -> None:
    """Two steps of 2 s and 3 s; two evaluations of 5 s are all that the runs' manifests tell of."""
    assert result.methods[0].generated_tokens == 1100
    assert result.methods[1].kl_initial == 0.5
    assert result.seconds["grpo"].by_phase == {"generate": 4.0, "update": 6.0}
    assert result.seconds["grpo"].stages == 10.0


def test_memory_is_the_highest_of_all_seeds_and_steps(tmp_path: Path) -> None:
    """A resumed call begins a new peak, and loads the initial policy later. What no system told is unknown, and not 0."""
    for member in comparison().members():
        memory = {("grpo", 0): [(700, 1), (900, 2)], ("grpo", 1): [(950, 2), (600, 1)]}
        write_member(tmp_path, member, test=[1, 0], memory=memory.get((member.method, member.seed), ()))
    result = compared(comparison(), read_members(tmp_path, comparison()))
    assert (result.memory["grpo"].peak_mib, result.memory["grpo"].models) == (950, 2)
    assert (result.memory["rloo"].peak_mib, result.memory["rloo"].models) == (None, None)
    found = metrics(result)
    assert (found["compare/peak_mib/grpo"], found["compare/models/grpo"]) == (950, 2)
    assert "compare/peak_mib/rloo" not in found


def with_news(root: Path) -> tuple[Comparison, Compared]:
    """grpo loses 0.1 and 0.2 nats of the two items with seed 0, 0.3 and 0.2 with seed 1; rloo changes nothing."""
    given = comparison(retention=True)
    lost = {("grpo", 0): [-0.1, -0.2], ("grpo", 1): [-0.3, -0.2]}
    for member in given.members():
        write_member(root, member, test=[1, 0], news=lost.get((member.method, member.seed), [0.0, 0.0]))
    return given, compared(given, read_members(root, given))


def test_old_abilities_are_paired_with_the_given_policy(tmp_path: Path) -> None:
    """Means of -0.15 and -0.25: -0.2, std 0.1 / sqrt(2). Over seeds 12.706 x std / sqrt(2) = 0.635 to each side."""
    _, result = with_news(tmp_path)
    grpo, rloo = (method.retention["news"]["value"] for method in result.methods)
    assert grpo.over_seeds_and_problems.estimate == pytest.approx(-0.2)
    assert grpo.over_seeds_and_problems.n == 4
    assert -0.3 <= grpo.over_seeds_and_problems.low < grpo.over_seeds_and_problems.high < 0
    assert grpo.spread == pytest.approx(0.0707107)
    assert grpo.over_seeds is not None
    assert grpo.over_seeds.low == pytest.approx(-0.2 - 0.63531, abs=1e-4)
    assert not grpo.is_shown
    assert (rloo.over_seeds_and_problems.estimate, rloo.spread) == (0.0, 0.0)
    found = metrics(result)
    assert found["compare/retention/news/grpo"] == pytest.approx(-0.2)
    assert found["compare/retention_low/news/grpo"] == grpo.over_seeds_and_problems.low


def test_old_abilities_and_memory_are_shown_at_the_terminal_and_on_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, result = with_news(tmp_path)
    for table in tables(result):
        Terminal().print(table)
    out = capsys.readouterr().out
    assert "Old abilities, change against the policy before all training" in out
    assert "-0.2000" in out
    page = render(given, result, best_of_each(read_members(tmp_path, given), given.compare.rate_seeds))
    assert "Old abilities" in page
    assert ">-0.2000</data>" in page
    assert "models<br>held" in page


def test_a_training_that_ended_before_its_budget_is_told(result: Compared) -> None:
    assert result.short == ["made-up-rloo-s1, round 1"]
    assert "ended before the budget was spent: made-up-rloo-s1, round 1" in notes(result)[-1]


def test_a_method_that_trained_nothing_gets_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was called worse by 1.000, and two of its two policies promoted."""
    given = comparison()
    for member in given.members():
        is_first = member.method == "grpo"
        write_member(
            tmp_path,
            member,
            test=[1, 1] if is_first else [0, 0],
            dev=(0.1, 0.5 if is_first else 0.1),
            untrained=None if is_first else "no pairs",
        )
    found = read_members(tmp_path, given)
    result = compared(given, found)
    assert (result.methods[0].num_untrained, result.methods[1].num_untrained) == (0, 2)
    assert result.methods[1].gain is None
    assert list(verdicts(result)) == ["rloo against grpo: no verdict, since rloo trained nothing"]
    told = "\n".join(notes(result))
    assert "nothing was trained in: made-up-rloo-s0, round 1, made-up-rloo-s1, round 1; the policy is the one" in told
    assert result.target is None
    assert "'to reach' is empty" in told
    for table in tables(result):
        Terminal().print(table)
    out = capsys.readouterr().out
    assert "untrained" in out
    assert "not reached" not in out
    page = render(given, result, best_of_each(found, given.compare.rate_seeds))
    assert "trained nothing" in page
    assert "worse" not in page
    assert "compare/gain/rloo" not in metrics(result)


def test_one_idle_training_of_several_is_told_beside_the_verdict(tmp_path: Path) -> None:
    given = comparison()
    for member in given.members():
        write_member(tmp_path, member, test=[1, 0], untrained="dead" if member.name == "made-up-rloo-s1" else None)
    result = compared(given, read_members(tmp_path, given))
    [sentence] = verdicts(result)
    assert "no difference shown" in sentence
    assert any("nothing was trained in: made-up-rloo-s1, round 1" in note for note in notes(result))


def test_mlflow_gets_a_number_for_each_method(result: Compared) -> None:
    found = metrics(result)
    assert found["compare/test/rloo"] == 0.625
    assert found["compare/gain/rloo"] == 0.25
    assert found["compare/difference_shown/rloo"] == 0.0
    assert "compare/gain/grpo" not in found


def test_each_method_is_shown_at_the_learning_rate_that_is_best_on_dev(tmp_path: Path) -> None:
    """Half the rate is better on dev and worse on test; the interval and the costs are of its runs."""
    given = comparison(learning_rate_factors=[0.5, 1])
    for member in given.members():
        is_half = member.factor == 0.5
        write_member(
            tmp_path, member, test=[1, 0, 0, 0] if is_half else [1, 1, 1, 1], dev=(0.1, 0.9 if is_half else 0.4)
        )
    found = read_members(tmp_path, given)
    grpo, _ = compared(given, found).methods
    assert grpo.factor == 0.5
    assert grpo.test == 0.25
    assert [(at.factor, at.learning_rate, at.dev, at.test) for at in grpo.by_factor] == [
        (0.5, 5e-6, 0.9, 0.25),
        (1.0, 1e-5, 0.4, 1.0),
    ]
    assert grpo.test_range == 0.75
    told = notes(compared(given, found))
    assert "best at x0.5, the lowest rate that was tried, so a lower one may do better: grpo, rloo" in told
    assert not any("the highest rate" in note for note in told)
    assert metrics(compared(given, found))["compare/test_range/grpo"] == 0.75
    assert [run.member.name for run in best_of_each(found, [0, 1])["rloo"]] == [
        "made-up-rloo-lr0.5-s0",
        "made-up-rloo-lr0.5-s1",
    ]


def test_rates_are_chosen_by_the_first_seeds_and_shown_with_all(tmp_path: Path) -> None:
    """With seed 0 half the rate is better on dev; with seed 1, which is run at that rate alone, it is worse than all before."""
    given = comparison(learning_rate_factors=[0.5, 1], num_rate_seeds=1)
    assert [member.name for member in given.first_members() if member.method == "grpo"] == [
        "made-up-grpo-lr0.5-s0",
        "made-up-grpo-s0",
    ]
    for member in [*given.first_members(), *given.later_members({"grpo": 0.5, "rloo": 1.0})]:
        is_best = member.factor == {"grpo": 0.5, "rloo": 1.0}[member.method]
        dev = 0.1 if member.seed == 1 else 0.9 if is_best else 0.4
        write_member(tmp_path, member, test=[1, member.seed, 0, 0], dev=(0.1, dev))
    assert best_factors(tmp_path, given) == {"grpo": 0.5, "rloo": 1.0}
    found = read_members(tmp_path, given)
    grpo, rloo = compared(given, found).methods
    assert [(m.factor, m.seeds, m.test_by_seed, m.dev) for m in (grpo, rloo)] == [
        (0.5, [0, 1], [0.25, 0.5], 0.5),
        (1.0, [0, 1], [0.25, 0.5], 0.5),
    ]
    assert [at.dev for at in grpo.by_factor] == [0.9, 0.4], "of the seed with which both were tried"
    assert any(
        note.endswith("both with seed 0, as all rates were tried with these alone")
        for note in notes(compared(given, found))
    )


@pytest.mark.parametrize(("factor", "is_told"), [(3, True), (1, False)])
def test_the_only_factor_is_told_where_it_changes_the_rate(tmp_path: Path, factor: float, is_told: bool) -> None:
    given = comparison(learning_rate_factors=[factor])
    for member in given.members():
        write_member(tmp_path, member, test=[1, 0])
    told = notes(compared(given, read_members(tmp_path, given)))
    assert (f"each method has {factor} times its learning rate, the only factor that was tried" in told) == is_told
    assert not any("best on dev" in note for note in told)


@pytest.mark.parametrize(
    ("change", "message"), [({"problems": "q"}, r"problems/train\.jsonl"), ({"scorer": "b"}, "scorer/correct")]
)
def test_members_with_other_problems_or_another_scorer_are_not_compared(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    for member in comparison().members():
        changed = change if member.name == "made-up-rloo-s1" else {}
        write_member(tmp_path, member, test=[1, 0], **changed)
    with pytest.raises(ConfigError, match=rf"'made-up-rloo-s1' cannot be compared: .* {message}"):
        read_members(tmp_path, comparison())


def test_problems_may_differ_between_seeds(tmp_path: Path) -> None:
    """The seed draws which problems are trained on."""
    for member in comparison().members():
        write_member(tmp_path, member, test=[1, 0], problems=str(member.seed))
    assert read_members(tmp_path, comparison())


def test_with_one_seed_spread_and_the_interval_over_seeds_are_unknown(tmp_path: Path) -> None:
    given = comparison(seeds=[3])
    for member in given.members():
        write_member(tmp_path, member, test=[1, 0])
    result = compared(given, read_members(tmp_path, given))
    assert result.methods[0].spread is None
    gain = result.methods[1].gain
    assert gain is not None
    assert gain.over_seeds is None
    assert "with one seed, what another seed would do is unknown" in notes(result)


def test_old_abilities_are_lost_against_the_policy_before_a_cold_start(tmp_path: Path) -> None:
    """They were taken against round 0, which comes after it. Before it an item has -1 nats, in round 0 -2, at the end -2.25."""
    member = next(iter(comparison(retention=True).members()))
    write_member(tmp_path, member, test=[1], news=[-0.25])
    run = read_member(tmp_path, member)
    assert run.retained("news", "value") == {"n0": -0.25}
    before = before_cold_start_folder(run.records.folder) / "evaluate"
    write_jsonl(before / "retention.jsonl", [{"suite": "news", "item": "n0", "value": -1.0}])
    write_json(before / "retention.json", RetentionReport(policy_id="x", suites={}).model_dump())
    assert read_member(tmp_path, member).retained("news", "value") == {"n0": -1.25}


def test_tables_fit_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with old abilities, three factors and peaks of many GiB."""
    given, terminal = comparison(retention=True, learning_rate_factors=[0.33, 1, 3]), Terminal()
    phases = {"generate": 2000.0, "score": 100.0, "update": 3000.0}
    for member in given.members():
        dev = (0.1, 0.3 if (member.method, member.seed) == ("grpo", 1) else 0.6)
        write_member(
            tmp_path, member, test=[1, 1, 1, 0], dev=dev, phases=phases, memory=[(123_456, 3)], news=[-0.1, 0.2]
        )
    for table in tables(compared(given, read_members(tmp_path, given))):
        terminal.print(table)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "0.750" in text
    assert "(1 of 2" in text
    assert "123,456" in text


def test_the_page_is_self_contained_and_escapes_what_it_shows(tmp_path: Path) -> None:
    methods = {"grpo": {}, "rloo": {"watch": [{"metric": "<script>alert(1)</script>", "above": 1.0}]}}
    given = comparison(methods=methods)
    write_all(tmp_path, given)
    found = read_members(tmp_path, given)
    page = render(given, compared(given, found), best_of_each(found, given.compare.rate_seeds))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "no difference shown" in page
    assert 'aria-label="reward in training' in page
    assert not [address for address in ("src=", 'http-equiv="refresh', "@import") if address in page]


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_member_whose_files_are_not_as_its_run_left_them_is_not_compared(tmp_path: Path, damage: str) -> None:
    given = comparison()
    for member in given.members():
        write_member(tmp_path, member, test=[1, 0])
    stage = tmp_path / "runs/made-up-rloo-s1/round_001/evaluate"
    manifest = read_manifest(stage)
    assert manifest is not None
    write_manifest(stage, manifest.model_copy(update={"outputs": digest_files(stage, leave_out=(MANIFEST,))}))
    read_members(tmp_path, given)
    rows = stage / "results.jsonl"
    if damage == "cut":
        rows.write_text(rows.read_text().splitlines()[0] + "\n")
    else:
        rows.unlink()
    with pytest.raises(
        ConfigError, match=r"results\.jsonl was changed or removed since run 'made-up-rloo-s1' wrote it.*remove"
    ):
        read_members(tmp_path, given)


def test_a_tie_of_learning_rates_and_a_method_that_trained_nothing_are_at_no_edge(tmp_path: Path) -> None:
    given = comparison(learning_rate_factors=[1, 3])
    for member in given.members():
        idle = "no pairs" if member.method == "grpo" else None
        write_member(tmp_path, member, test=[1, 0], dev=(0.1, 0.5), untrained=idle)
    assert not any("rate that was tried" in note for note in notes(compared(given, read_members(tmp_path, given))))
