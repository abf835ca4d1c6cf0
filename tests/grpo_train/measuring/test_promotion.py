import pytest

from configs.errors import ConfigError
from configs.records import Estimate
from configs.schema.evaluation import PeopleConfig, PromotionConfig
from grpo_train.measuring.promotion import decide, win_rate
from grpo_train.measuring.retention.changes import RetentionLoss


def rows(values):
    return [{"problem_key": str(i), "greedy_accuracy": value} for i, value in enumerate(values)]


def judge(before, after, **rule):
    return decide(rows(before), rows(after), config=PromotionConfig(**rule), seed=0, draws=2000)


def test_a_clear_gain_promotes_and_reports_the_paired_difference():
    decision = judge([0] * 50 + [1] * 50, [1] * 20 + [0] * 30 + [1] * 50)
    assert decision.promoted
    assert decision.gain == pytest.approx(0.2)
    assert 0 < decision.low < 0.2 < decision.high
    assert decision.n == 100


def test_no_difference_is_not_better_but_not_worse():
    same = [0, 1] * 50
    assert not judge(same, same, rule="better").promoted
    assert judge(same, same, rule="not_worse").promoted


def test_a_loss_is_worse_and_only_always_promotes_it():
    before, after = [1] * 100, [0] * 20 + [1] * 80
    assert not judge(before, after, rule="better").promoted
    assert not judge(before, after, rule="not_worse").promoted
    assert judge(before, after, rule="always").promoted


def test_pairing_sees_what_two_separate_intervals_would_not():
    # 8 of 100 problems flip to right, none to wrong: the paired interval is [0.03, 0.14], separate ones overlap
    before = [1, 0] * 46 + [0] * 8
    after = [1, 0] * 46 + [1] * 8
    assert judge(before, after).promoted


def test_order_of_rows_does_not_matter():
    before, after = rows([0, 1, 1, 0]), rows([1, 1, 0, 0])
    config = PromotionConfig()
    one = decide(before, after, config=config, seed=0, draws=100)
    assert one == decide(before, after[::-1], config=config, seed=0, draws=100)


def test_other_problems_and_unknown_metrics_are_refused():
    with pytest.raises(ValueError, match="same split"):
        decide(rows([1, 0]), rows([1, 0, 1]), config=PromotionConfig(), seed=0, draws=10)
    with pytest.raises(ConfigError, match=r"accuracy_of_dreams.*greedy_accuracy"):
        judge([1], [1], metric="accuracy_of_dreams")


def people(rule, leanings, gain=1):
    config = PromotionConfig(rule="better", people=PeopleConfig(rule=rule))
    before, after = rows([0] * 20), rows([gain] * 20)
    return decide(before, after, config=config, seed=0, draws=200, people=win_rate(leanings))


@pytest.mark.parametrize(
    ("rule", "wins", "losses", "promoted"),
    [
        # Wilson's 95% interval of 9 in 10 is [0.60, 0.98], of 5 in 10 [0.24, 0.76], of 1 in 10 [0.02, 0.40]
        ("better", 9, 1, True),
        ("better", 5, 5, False),
        ("not_worse", 5, 5, True),
        ("not_worse", 1, 9, False),
        ("report", 1, 9, True),
        ("better", 0, 0, False),
        ("not_worse", 0, 0, True),
    ],
)
def test_peoples_word_counts_beside_the_rule(rule, wins, losses, promoted):
    decision = people(rule, [1.0] * wins + [-1.0] * losses)
    assert decision.promoted is promoted
    assert f"people.rule {rule}" in decision.reason


def test_people_cannot_promote_what_the_rule_refuses():
    assert not people("better", [1.0] * 30, gain=0).promoted


def test_win_rate_counts_a_tie_as_half_a_win_and_knows_nothing_of_nobody():
    assert win_rate([1.0, 0.0, -1.0, 1.0]).estimate == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert win_rate([]) is None


def test_problems_without_the_metric_do_not_count():
    before, after = rows([0, 1, 0]), rows([1, 1, 1])
    for row in (before[0], after[1]):  # a problem of another source, and one that a judge did not answer on
        del row["greedy_accuracy"]
    decision = decide(before, after, config=PromotionConfig(), seed=0, draws=10)
    assert (decision.n, decision.gain) == (1, 1.0)


def unscored(number):
    return [{"problem_key": str(i), "unscored": {"correct": {"service down": 5}}} for i in range(number)]


@pytest.mark.parametrize("rule", ["better", "not_worse", "always"])
@pytest.mark.parametrize(
    ("before", "after"), [(rows([1] * 6), unscored(6)), (unscored(6), rows([1] * 6)), (unscored(6), unscored(6))]
)
def test_nothing_is_promoted_without_values(rule, before, after):
    """A checker whose service was down gave both 0.0, a gain of 0 that `not_worse` promoted."""
    decision = decide(before, after, config=PromotionConfig(rule=rule), seed=0, draws=10)
    assert (decision.promoted, decision.gain, decision.n) == (False, None, 0)
    assert decision.reason.startswith("no problem has a value of greedy_accuracy in both (champion ")


def test_a_comparison_is_on_the_problems_that_were_scored_in_both():
    before, after = rows([1, 0, 0, 1, 0]), rows([1, 1, 0, 1, 0])
    del before[0]["greedy_accuracy"], after[1]["greedy_accuracy"]
    decision = decide(before, after, config=PromotionConfig(rule="always"), seed=0, draws=10)
    assert (decision.gain, decision.n) == (0.0, 3)  # problems 2, 3 and 4


def forgotten(high):
    loss = Estimate(estimate=0.01, low=0.0, high=high, n=40)
    return RetentionLoss(suite="prose", measure="value", loss=loss, max_loss=0.02)


@pytest.mark.parametrize("rule", ["better", "not_worse", "always"])
@pytest.mark.parametrize(("high", "promoted"), [(0.02, True), (0.021, False)])
def test_a_challenger_that_may_have_lost_more_than_its_bound_is_refused_whatever_the_rule(rule, high, promoted):
    kept = RetentionLoss(suite="facts", measure="value", loss=Estimate(estimate=0, low=0, high=0, n=9), max_loss=0)
    decision = decide(
        rows([0] * 20), rows([1] * 20), config=PromotionConfig(rule=rule), seed=0, draws=200,
        retention=[forgotten(high), kept],
    )  # fmt: skip
    assert decision.promoted is promoted
    assert ("refused for what it forgot: prose lost +0.0100" in decision.reason) is not promoted
    assert ("facts" in decision.reason) is promoted  # what was kept stands in the reason where nothing refuses
    assert [loss.is_allowed for loss in decision.retention] == [promoted, True]


def test_old_abilities_that_are_kept_promote_nothing():
    same = rows([0, 1] * 10)
    assert not decide(same, same, config=PromotionConfig(), seed=0, draws=50, retention=[forgotten(0.0)]).promoted
