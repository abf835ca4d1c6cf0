"""The metrics that MLflow gets of a comparison."""

from __future__ import annotations

from tasks.comparing.result import Compared, MethodResult


def metrics(result: Compared) -> dict[str, float]:
    """{`compare/<what>/<method>`: value}, as docs/metrics.md defines them."""
    return {
        f"compare/{name}/{method.method}": value
        for method in result.methods
        for name, value in _of(method, result).items()
        if value is not None
    }


def _of(method: MethodResult, result: Compared) -> dict[str, float | None]:
    gain = method.gain
    over = None if gain is None else gain.over_seeds_and_problems
    return {
        "test": method.test,
        "spread": method.spread,
        "dev": method.dev,
        "champion": method.champion,
        "gain": None if over is None else over.estimate,
        "gain_low": None if over is None else over.low,
        "gain_high": None if over is None else over.high,
        "difference_shown": None if gain is None else float(gain.is_shown),
        "generated_tokens": method.generated_tokens,
        "tokens_to_reach": method.tokens_to_reach,
        "kl_initial": method.kl_initial,
        "learning_rate_factor": method.factor,
        "test_range": method.test_range,
        "seconds": result.seconds[method.method].stages,
        "peak_mib": result.memory[method.method].peak_mib,
        "models": result.memory[method.method].models,
        **_retention(method),
    }


def _retention(method: MethodResult) -> dict[str, float]:
    found: dict[str, float] = {}
    for suite, measures in method.retention.items():
        for measure, gain in measures.items():
            value, name = gain.over_seeds_and_problems, suite if measure == "value" else f"{suite}/{measure}"
            found |= {f"retention/{name}": value.estimate, f"retention_low/{name}": value.low}
            found |= {f"retention_high/{name}": value.high}
    return found
