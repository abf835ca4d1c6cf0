"""Finds the metrics that tell the accuracy by source, for tables and figures."""

from __future__ import annotations

from collections.abc import Iterable

ACCURACY = "greedy_accuracy/"


def accuracies_by_source(names: Iterable[str]) -> dict[str, str]:
    """{source: metric} of the metrics among `names` that are a source's accuracy, in the order of the sources' names.

    >>> accuracies_by_source(["greedy_accuracy", "greedy_accuracy/math", "greedy_accuracy/code", "pass_at_1"])
    {'code': 'greedy_accuracy/code', 'math': 'greedy_accuracy/math'}
    """
    return {name.removeprefix(ACCURACY): name for name in sorted(set(names)) if name.startswith(ACCURACY)}
