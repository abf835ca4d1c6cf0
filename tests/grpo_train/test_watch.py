from configs.schema import WatchRule
from grpo_train.watch import Watch


def sounds(rule, values):
    watch = Watch([rule])
    return [step for step, value in enumerate(values) if watch.look(step, {"policy/entropy": value})]


def test_an_alarm_needs_patience_measurements_in_a_row():
    rule = WatchRule(metric="policy/entropy", below=0.1, patience=3)
    assert sounds(rule, [0.05, 0.05, 0.5, 0.05, 0.05, 0.05]) == [5]


def test_an_alarm_sounds_once_until_the_metric_is_back():
    rule = WatchRule(metric="policy/entropy", above=1.0, patience=1)
    assert sounds(rule, [2, 2, 0, 2]) == [0, 3]


def test_steps_that_did_not_measure_the_metric_do_not_count():
    watch = Watch([WatchRule(metric="policy/kl_initial", above=1.0, patience=2)])
    assert watch.look(1, {"policy/kl_initial": 2.0}) == []
    assert watch.look(2, {}) == []
    (alarm,) = watch.look(3, {"policy/kl_initial": 3.0})
    assert str(alarm) == "policy/kl_initial is 3 at step 3: above 1 for 2 measurements in a row"
