from configs.schema.config import WatchRule
from grpo_train.observers.watch import Watch


def sounds(rule, values):
    watch = Watch([rule])
    return [step for step, value in enumerate(values) if watch.examine(step, {"policy/entropy": value})]


def test_an_alarm_needs_patience_measurements_in_a_row():
    rule = WatchRule(metric="policy/entropy", below=0.1, patience=3)
    assert sounds(rule, [0.05, 0.05, 0.5, 0.05, 0.05, 0.05]) == [5]


def test_an_alarm_sounds_once_until_the_metric_is_back():
    rule = WatchRule(metric="policy/entropy", above=1.0, patience=1)
    assert sounds(rule, [2, 2, 0, 2]) == [0, 3]


def test_steps_that_did_not_measure_the_metric_do_not_count():
    watch = Watch([WatchRule(metric="policy/kl_initial", above=1.0, patience=2)])
    assert watch.examine(1, {"policy/kl_initial": 2.0}) == []
    assert watch.examine(2, {}) == []
    (alarm,) = watch.examine(3, {"policy/kl_initial": 3.0})
    assert str(alarm) == "policy/kl_initial is 3 at step 3: above 1 for 2 measurements in a row"


def test_a_jump_is_the_distance_from_the_mean_before():
    rule = WatchRule(metric="policy/entropy", above=0.3, jump_over=3, patience=1)
    # 0.7 is 0.5 over (0.2 + 0.3 + 0.1) / 3; 0.5 is 0.13 over (0.3 + 0.1 + 0.7) / 3
    assert sounds(rule, [0.9, 0.1, 0.2, 0.3, 0.1, 0.7, 0.5]) == [5]
    watch = Watch([rule])
    for step, value in enumerate([0.1, 0.2, 0.3]):
        watch.examine(step, {"policy/entropy": value})
    (alarm,) = watch.examine(3, {"policy/entropy": 0.7})
    assert str(alarm).startswith("policy/entropy less its mean before is 0.5 at step 3: above 0.3")


def test_a_jump_is_told_after_a_resume_as_without_one():
    rule = WatchRule(metric="policy/entropy", above=0.3, jump_over=2, patience=1)
    whole, broken_off = Watch([rule]), Watch([rule])
    for step, value in enumerate([0.1, 0.2]):
        whole.examine(step, {"policy/entropy": value})
        broken_off.examine(step, {"policy/entropy": value})
    resumed = Watch([rule])
    resumed.restore(broken_off.state())
    assert resumed.examine(2, {"policy/entropy": 0.5}) == whole.examine(2, {"policy/entropy": 0.5}) != []
