import json
import math
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.records import Completion, Score
from grpo_train.groups import Groups
from grpo_train.observers.token_ledger import CLASSES, TokenLedger, token_counts, token_metrics
from grpo_train.updating.advantages import group_advantages
from reward_training.transformer.positions import Positions
from tests.grpo_train.conftest import make_problem

GROUP_SIZE = 2
Row = tuple[int, str, float, bool]
"""length, finish reason, reward (NaN: unscored), whether it is from the cache"""


def completion(length: int, finish_reason: str = "stop") -> Completion:
    return Completion(
        problem_key="p",
        index=0,
        prompt_ids=[1],
        token_ids=[2] * length,
        text="",
        finish_reason=finish_reason,
        logprobs=[-1.0] * length,
        policy_id="x",
        step=1,
        seed=0,
    )


def counted(rows: list[Row]) -> Counter[str]:
    """Of rows in groups of two."""
    problems = [make_problem(str(i)) for i in range(len(rows) // GROUP_SIZE)]
    completions = [completion(length, reason) for length, reason, _, _ in rows]
    known = [None if math.isnan(reward) else reward for _, _, reward, _ in rows]
    scores = [Score(parts={"x": reward}, total=0.0) for reward in known]
    groups = Groups(problems, completions, scores, [is_old for _, _, _, is_old in rows])
    parts = np.array([[reward] for _, _, reward, _ in rows])
    return token_counts(groups, group_advantages(parts, np.ones(1), GROUP_SIZE))


ROW = st.tuples(
    st.integers(1, 50),
    st.sampled_from(["stop", "length", "aborted:loop"]),
    st.sampled_from([0.0, 1.0, 0.5, float("nan")]),
    st.booleans(),
)
BATCH = st.lists(st.tuples(ROW, ROW), min_size=1, max_size=12).map(
    lambda groups: [row for pair in groups for row in pair]
)


@settings(deadline=None)
@given(BATCH)
def test_classes_add_up_to_the_tokens_generated(rows):
    counts = counted(rows)
    assert counts.keys() <= set(CLASSES)
    assert sum(counts.values()) == sum(length for length, _, _, _ in rows)
    generated = sum(length for length, _, _, is_old in rows if not is_old)
    assert sum(counts[name] for name in CLASSES if name != "old") == generated
    assert token_metrics(counts)["tokens/generated"] == generated


@settings(deadline=None)
@given(BATCH, BATCH)
def test_totals_of_two_steps_are_those_of_both_batches(first, second):
    ledger = TokenLedger()
    for batch in (first, second):
        ledger.add(counted(batch), Positions(10, 3))
    both = counted(first) + counted(second)
    assert ledger.totals == {name: both[name] for name in CLASSES} | {"computed": 20, "padding": 6}


def test_each_response_is_in_the_first_class_that_fits():
    nan = float("nan")
    # tokens are powers of ten, so that each count names its rows
    counts = counted(
        [
            *[(1, "stop", 1.0, False), (10, "length", 0.0, False)],  # alive: useful and truncated
            *[(100, "stop", 0.5, False), (1000, "length", 0.5, False)],  # equal: dead, whether it ended or not
            *[(10**4, "stop", nan, False), (10**5, "aborted:loop", 0.0, False)],  # one scored row: the group is dead
            *[(10**6, "stop", 1.0, True), (10**7, "stop", 0.0, False)],  # alive, one row from the cache
        ]
    )
    assert counts == {
        "useful": 10**7 + 1,
        "truncated": 10,
        "dead": 1100,
        "unscored": 10**4,
        "aborted": 10**5,
        "old": 10**6,
    }


def test_shares_are_of_the_tokens_and_padding_is_of_the_positions():
    metrics = TokenLedger().add(Counter(useful=30, dead=8, old=2), Positions(60, 6), Positions(40, 4))
    assert metrics == {
        "tokens/generated": 38.0,
        "tokens/useful_share": 0.75,
        "tokens/truncated_share": 0.0,
        "tokens/dead_share": 0.2,
        "tokens/unscored_share": 0.0,
        "tokens/aborted_share": 0.0,
        "tokens/old_share": 0.05,
        "tokens/padding_share": 0.1,
    }


def test_what_row_sampling_left_out_is_counted_beside_the_classes():
    ledger = TokenLedger()
    first = ledger.add(Counter(useful=6, dead=2, downsampled=4), Positions(9, 4))
    second = ledger.add(Counter(useful=2, downsampled=0), Positions(9, 4))
    assert (first["tokens/downsampled_share"], second["tokens/downsampled_share"]) == (0.5, 0.0)
    assert first["tokens/generated"] == 8.0
    assert token_metrics(ledger.totals)["tokens/downsampled_share"] == 0.4


def test_a_restored_ledger_goes_on_where_it_was():
    ledger, again = TokenLedger(), TokenLedger()
    ledger.add(Counter(useful=3, truncated=2), Positions(9, 4))
    again.restore(json.loads(json.dumps(ledger.state())))
    for each in (ledger, again):
        each.add(Counter(dead=5), Positions(1, 1))
    assert (
        again.totals
        == ledger.totals
        == {
            "useful": 3,
            "truncated": 2,
            "dead": 5,
            "unscored": 0,
            "aborted": 0,
            "old": 0,
            "computed": 10,
            "padding": 5,
        }
    )
