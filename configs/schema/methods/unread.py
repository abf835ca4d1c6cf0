"""Fields that a method does not read: which of them are refused, and which stay what other methods are given.

A field that would say something about the method, and does not, is refused wherever it is not at its default. The sizes of
the loop that samples (`OF_THE_LOOP`) may stay beside a method that learns from pairs, so that one configuration can name
several methods; `regroup doctor` says that they are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from configs.schema.methods.method import (
    BestOfNMethod,
    Method,
    PairMethod,
    PpoMethod,
    ReinforceMethod,
    is_offline,
)
from configs.schema.methods.offline import DpoMethod, IpoMethod

if TYPE_CHECKING:
    from configs.schema.config import Config

SPREAD = "combination.reward_spread_floor"
BOUNDS = ("clip_range", "clip_range_high", "dual_clip")
WEIGHTING = ("importance", "min_importance_weight", "max_importance_weight", "beyond")
OF_THE_LOOP = (
    "group_size",
    "learning_rate",
    "batch_size",
    "temperature",
    "top_p",
    "top_k",
    "epochs",
    "max_updates",
    "monitor_kl_every",
)
"""fields of `grpo_config` that methods which learn from pairs do not read"""


def refuse_unread(config: Config) -> None:
    """Refuse a field that the configuration's method does not read, where it is not at its default.

    Raises:
        ValueError: names the field, its value and the remedy.
    """
    for path, (why, remedy) in unread(config.method).items():
        given, default = _value_and_default(config, path)
        if given != default:
            raise ValueError(f"{path}={given} {why}; {remedy}, or set its default, {default}")


def unread(method: Method) -> dict[str, tuple[str, str]]:
    """{field: (why the method does not read it, remedy)}."""
    of_servers = _each("grpo_config.vllm", WEIGHTING, "is of importance weights, which {method} has none of")
    fields = _of_kind(method) | (of_servers if is_offline(method) else {})
    told = "method.mode=offline" if isinstance(method, BestOfNMethod) else f"method.kind={method.kind}"
    return {path: (why.format(method=told), remedy) for path, (why, remedy) in fields.items()}


def _of_kind(method: Method) -> dict[str, tuple[str, str]]:
    match method:
        case ReinforceMethod(baseline="moving_average") | PpoMethod():
            return {SPREAD: ("says which groups are dead, and {method} compares in no group", "leave it out")}
        case ReinforceMethod():
            why = f"is of the baseline moving_average, and method.baseline={method.baseline}"
            remedy = "use baseline: moving_average, or leave decay out"
            return {"method.decay": (why, remedy), **_of_kind(method.model_copy(update={"baseline": "moving_average"}))}
        case BestOfNMethod():
            why = "says which groups are dead, and method.kind=best_of_n imitates the best response of equal ones too"
            ratio = "bounds the ratio of probabilities, which is always 1 with method.kind=best_of_n"
            return {SPREAD: (why, "use method.min_score, or leave it out"), **_each("grpo_config", BOUNDS, ratio)}
        case DpoMethod() | IpoMethod():
            spread = ("is not read by {method}, whose pairs differ by method.min_margin", "use min_margin")
            return {
                SPREAD: spread,
                **_each("combination", ("scale", "baseline"), "is of advantages, and {method} computes none"),
                **_each("grpo_config", ("loss", *BOUNDS), "is of another loss than that of {method}"),
            }
        case _:
            return {}


def _each(block: str, names: tuple[str, ...], why: str) -> dict[str, tuple[str, str]]:
    return {f"{block}.{name}": (why, "leave it out") for name in names}


def sizes_not_read(config: Config) -> dict[str, Any]:
    """{field of `grpo_config`: its value} of those that the method does not read, where they are not at their defaults."""
    if not is_offline(config.method):
        return {}
    not_read = OF_THE_LOOP if isinstance(config.method, PairMethod) else ("monitor_kl_every",)
    both = {name: _value_and_default(config, f"grpo_config.{name}") for name in not_read}
    return {name: given for name, (given, default) in both.items() if given != default}


def _value_and_default(config: Config, path: str) -> tuple[Any, Any]:
    """The field's value and its default; None twice where its block is not there."""
    *blocks, name = path.split(".")
    block: Any = config
    for outer in blocks:
        block = getattr(block, outer)
        if block is None:
            return None, None
    return getattr(block, name), type(block).model_fields[name].get_default(call_default_factory=True)
