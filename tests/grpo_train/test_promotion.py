import pytest

from configs.schema import PromotionConfig
from grpo_train.promotion import decide


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
    with pytest.raises(ValueError, match=r"accuracy_of_dreams.*greedy_accuracy"):
        judge([1], [1], metric="accuracy_of_dreams")
