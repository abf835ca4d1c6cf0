"""What a comparison says in words, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from configs.records import Estimate
from tasks.comparing.result import Compared, Gain, MethodResult


def seeds_told(seeds: Sequence[int]) -> str:
    """`with seed 3`, `with seeds 0, 1`"""
    return f"with seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def verdicts(result: Compared) -> Iterator[str]:
    """One sentence for each method but the first."""
    first = result.methods[0]
    for method in result.methods[1:]:
        idle = [one.method for one in (method, first) if one.trained_nothing]
        told = (
            f"no verdict, since {' and '.join(idle)} trained nothing" if method.gain is None else verdict(method.gain)
        )
        yield f"{method.method} against {first.method}: {told}"


def verdict(gain: Gain) -> str:
    """Whether a difference is shown; it is where neither interval holds 0."""
    over = gain.over_seeds_and_problems
    intervals = f"over seeds and problems {interval(over)}, "
    intervals += (
        "over seeds unknown with one seed" if gain.over_seeds is None else f"over seeds {interval(gain.over_seeds)}"
    )
    if gain.over_seeds is None:
        return f"{over.estimate:+.3f} with this seed, no verdict on others ({intervals})"
    if not gain.is_shown:
        return f"{over.estimate:+.3f}, no difference shown ({intervals})"
    return f"{'better' if over.estimate > 0 else 'worse'} by {abs(over.estimate):.3f} ({intervals})"


def interval(value: Estimate, places: int = 3) -> str:
    return f"[{value.low:+.{places}f}, {value.high:+.{places}f}]"


def reached(method: MethodResult, target: float | None) -> str:
    """The tokens after which a method reached the target, `3,000`, `3,000 (2 of 3 seeds)` or `not reached`; `-` without a target."""
    if target is None:
        return "-"
    if method.tokens_to_reach is None:
        return "not reached"
    of = "" if method.num_reached == len(method.seeds) else f" ({method.num_reached} of {len(method.seeds)} seeds)"
    return f"{method.tokens_to_reach:,.0f}{of}"


def _to_reach(target: float | None) -> str:
    if target is None:
        return "'to reach' is empty, as some method never comes over what the given policy has on dev"
    return (
        f"'to reach' counts tokens up to the first round with {target:.3f} on dev, the highest that every method reaches as the "
        "mean over its seeds"
    )


def _of_learning_rates(result: Compared) -> Iterator[str]:
    factors = [at.factor for at in result.methods[0].by_factor]
    if factors == [1.0]:
        return
    if len(factors) == 1:
        yield f"each method has {factors[0]:g} times its learning rate, the only factor that was tried"
        return
    yield (
        "each method is shown at the learning rate that is best on dev; 'range on test' is the highest minus the lowest value over "
        "the rates" + _chosen_by(result)
    )
    for edge, last, beyond in ((min(factors), "lowest", "lower"), (max(factors), "highest", "higher")):
        if at_edge := [method.method for method in result.methods if _is_best_alone(method, edge)]:
            yield f"best at x{edge:g}, the {last} rate that was tried, so a {beyond} one may do better: {', '.join(at_edge)}"


def _is_best_alone(method: MethodResult, factor: float) -> bool:
    """Whether a method that trained something is better on dev with this factor than with all others."""
    dev = {at.factor: at.dev for at in method.by_factor}
    return not method.trained_nothing and all(dev[factor] > value for other, value in dev.items() if other != factor)


def _chosen_by(result: Compared) -> str:
    if result.rate_seeds == result.methods[0].seeds:
        return ""
    return f"; both {seeds_told(result.rate_seeds)}, as all rates were tried with these alone"


def notes(result: Compared) -> list[str]:
    """What a reader has to know of the numbers."""
    every = [
        f"{result.metric} on {result.num_problems} test problems, of the policy that the last round trained; the given policy has "
        f"{result.given:.3f}",
        f"budget of each round: {result.budget}; {_to_reach(result.target)}",
    ]
    if result.untrained:
        every.append(
            f"nothing was trained in: {', '.join(result.untrained)}; the policy is the one that the round began with, and the run's "
            "log says why"
        )
    every += _of_learning_rates(result)
    if len(result.methods[0].seeds) == 1:
        every.append("with one seed, what another seed would do is unknown")
    if result.unbounded:
        every.append(
            f"not bounded by the budget: {', '.join(result.unbounded)}; the tokens shown are those of all samples that they took"
        )
    if result.short:
        every.append(
            f"ended before the budget was spent: {', '.join(result.short)}; raise grpo_config.epochs or max_updates, or see watch rules"
        )
    return every
