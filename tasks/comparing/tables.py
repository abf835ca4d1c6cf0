"""Tables of a comparison for the terminal, readable at 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from grpo_train.measuring.retention.changes import name_of
from tasks.comparing.result import Compared, MethodResult
from tasks.comparing.words import interval, reached, seeds_told


def tables(result: Compared) -> Iterator[Table]:
    """Results, costs, and where there are some, what became of old abilities and what each learning rate came to."""
    yield _table(
        f"Comparison {result.name}, {seeds_told(result.methods[0].seeds)}",
        _RESULTS,
        [_results(m) for m in result.methods],
    )
    phases = list(dict.fromkeys(name for cost in result.seconds.values() for name in cost.by_phase))
    columns = ["method", "tokens", "to reach", *(f"{name}\ns" for name in phases), "all\ns", "peak\nMiB", "models"]
    yield _table(COSTS, columns, [_costs(result, method, phases) for method in result.methods])
    if any(method.retention for method in result.methods):
        rows = [row for method in result.methods for row in _retention(method)]
        yield _table("Old abilities, change against the policy before all training", _RETENTION, rows, num_left=2)
    factors = [at.factor for at in result.methods[0].by_factor]
    if len(factors) > 1:
        columns = ["method", *(f"x{factor:g}\ndev / test" for factor in factors), "range\non test"]
        yield _table("Learning rates", columns, [_stability(method) for method in result.methods])


_RESULTS = ["method", "test", "std over\nseeds", "gain over\nthe first", "champions\n(promoted)", "KL"]
_RETENTION = ["method", "suite", "change", "over seeds\nand items", "over seeds", "std over\nseeds"]
COSTS = "Costs, means over seeds; the peak of memory and the models are the highest"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, num_left: int = 1) -> Table:
    """The first `num_left` columns are words."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i >= num_left else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _results(method: MethodResult) -> list[str]:
    gain = method.gain
    return [
        method.method,
        f"{method.test:.3f}",
        "?" if method.spread is None else f"{method.spread:.3f}",
        "-"
        if gain is None
        else f"{gain.over_seeds_and_problems.estimate:+.3f}\n{interval(gain.over_seeds_and_problems)}",
        "untrained"
        if method.trained_nothing
        else f"{method.champion:.3f}\n({method.num_promoted} of {method.num_trained})",
        "?" if method.kl_initial is None else f"{method.kl_initial:.3f}",
    ]


def _costs(result: Compared, method: MethodResult, phases: Sequence[str]) -> list[str]:
    cost, memory = result.seconds[method.method], result.memory[method.method]
    seconds = [f"{cost.by_phase[name]:.1f}" if name in cost.by_phase else "-" for name in phases]
    unknown = "-" if method.trained_nothing else "?"
    taken = [unknown if value is None else f"{value:,.0f}" for value in (memory.peak_mib, memory.models)]
    return [
        method.method,
        f"{method.generated_tokens:,.0f}",
        reached(method, result.target),
        *seconds,
        f"{cost.stages:.0f}",
        *taken,
    ]


def _retention(method: MethodResult) -> Iterator[list[str]]:
    for suite, measures in method.retention.items():
        for measure, gain in measures.items():
            over = gain.over_seeds_and_problems
            yield [
                method.method,
                name_of(suite, measure),
                f"{over.estimate:+.4f}",
                interval(over, 4),
                "?" if gain.over_seeds is None else interval(gain.over_seeds, 4),
                "?" if gain.spread is None else f"{gain.spread:.4f}",
            ]


def _stability(method: MethodResult) -> list[str]:
    cells = [f"{'* ' if at.factor == method.factor else ''}{at.dev:.3f} / {at.test:.3f}" for at in method.by_factor]
    return [method.method, *cells, "-" if method.test_range is None else f"{method.test_range:.3f}"]
