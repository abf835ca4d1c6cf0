"""The block `method`: how a round trains its policy on the scores of its responses."""

from typing import Annotated, Any, Literal

from pydantic import Field

from configs.schema.block import Block, PositiveFloat, PositiveInt, Share
from configs.schema.methods.offline import DpoMethod, IpoMethod
from configs.schema.operational import LATER

OF_POLICY = "policy"
"""the `value_model` that is made of the policy's backbone"""


class GrpoMethod(Block):
    """Rewards are normalised in the group of responses to one problem (arXiv 2402.03300), as `combination` says."""

    kind: Literal["grpo"] = "grpo"


class ReinforceMethod(Block):
    """The policy gradient with a baseline that knows no groups (Williams 1992). Losses are sums over tokens."""

    kind: Literal["reinforce"] = "reinforce"
    baseline: Literal["none", "batch_mean", "moving_average"] = Field(
        "batch_mean",
        description="what is subtracted from a response's reward: nothing; the mean of the step's rewards; or a moving average of "
        "those of the steps before",
    )
    decay: Share = Field(
        0.9, description="for `moving_average`: the weight that the average of the steps before keeps at each step"
    )


class RlooMethod(Block):
    """REINFORCE with the mean reward of the other responses of the group as baseline (RLOO, arXiv 2402.14740)."""

    kind: Literal["rloo"] = "rloo"


class BestOfNMethod(Block):
    """Imitates the best of the `group_size` responses to each problem (RAFT, arXiv 2304.06767)."""

    kind: Literal["best_of_n"] = "best_of_n"
    mode: Annotated[Literal["online", "offline"], LATER] = Field(
        "online",
        description="online: at each step the policy writes, and learns from its best responses; offline: it writes once, before it "
        "learns, to as many problems as the steps would ask",
    )
    epochs: Annotated[PositiveInt, LATER] = Field(
        1, description="mode offline: passes over the responses that are kept"
    )
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None,
        description="the weighted sum of rewards that the best response must be over to be learned from; default: none",
    )


class PpoMethod(Block):
    """PPO with a value model (arXiv 1707.06347) for language models (arXiv 1909.08593): generalised advantage estimation. `grpo_config.loss` is
    `dapo` where it is not given."""

    kind: Literal["ppo"] = "ppo"
    value_model: str = Field(
        OF_POLICY,
        min_length=1,
        description="what the value model begins from in each round. policy: the backbone of the policy that the round starts from, with "
        "a head of zeros; or the name of a trained reward model: the one that the round scores with (the policy's backbone where it "
        "scores without)",
    )
    gamma: Share = Field(1.0, description="discount of a reward per token")
    gae_lambda: Share = Field(
        1.0,
        description="lambda of generalised advantage estimation. 1: return minus value, without a bias; lower: less variance, and the "
        "reward at a response's end reaches its beginning through the value model only",
    )
    whiten: bool = Field(
        True,
        description="whether advantages are shifted and scaled to mean 0 and variance 1 over the tokens of a step, as RLHF code does",
    )
    value_clip: PositiveFloat | None = Field(
        0.2,
        description="a value that moved further than this within a step's updates gets no gradient that moves it on; 0.2 as in the code of "
        "arXiv 1909.08593 (verl and OpenRLHF: 0.5); null: no clipping",
    )
    value_learning_rate: PositiveFloat = Field(1e-5, description="learning rate of the value model's AdamW, constant")
    value_updates: PositiveInt | None = Field(
        None, description="updates of the value model on a step's responses; default: `grpo_config.updates_per_batch`"
    )
    value_warmup_updates: Annotated[int, Field(ge=0)] = Field(
        10,
        description="updates of the value model before the first of the policy, on responses and rewards of the round before's "
        "regeneration: a value model that knows nothing misleads the policy at first (arXiv 2503.01491)",
    )


PairMethod = DpoMethod | IpoMethod
"""methods that learn from preference pairs of the samples of the round before"""
Method = Annotated[
    GrpoMethod | ReinforceMethod | RlooMethod | BestOfNMethod | PpoMethod | DpoMethod | IpoMethod,
    Field(discriminator="kind"),
]


def is_offline(method: Method) -> bool:
    """Whether all samples are there before training begins."""
    return isinstance(method, PairMethod) or (isinstance(method, BestOfNMethod) and method.mode == "offline")


SETTINGS: dict[str, dict[tuple[str, str], Any]] = {
    "reinforce": {
        ("grpo_config", "loss"): "dr_grpo",
        ("combination", "scale"): "none",
        ("combination", "baseline"): "mean",
    },
    "rloo": {
        ("grpo_config", "loss"): "dr_grpo",
        ("combination", "scale"): "none",
        ("combination", "baseline"): "leave_one_out",
    },
    "best_of_n": {
        ("grpo_config", "loss"): "dapo",
        ("combination", "scale"): "none",
        ("combination", "baseline"): "mean",
    },
    "ppo": {("combination", "scale"): "none", ("combination", "baseline"): "mean"},
}
"""{method: {(block, field): the one value that fits it}}, which the field has where it is not given"""
DEFAULTS: dict[str, dict[tuple[str, str], Any]] = {"ppo": {("grpo_config", "loss"): "dapo"}}
"""{method: {(block, field): the value that the field has where it is not given}}; others fit too"""


def with_settings_of_method(given: Any) -> Any:
    """The configuration as it was given, with the settings that its method needs where they were left out."""
    method = given.get("method") if isinstance(given, dict) else None
    kind = method.get("kind") if isinstance(method, dict) else getattr(method, "kind", None)
    for (block, field), value in (SETTINGS.get(str(kind), {}) | DEFAULTS.get(str(kind), {})).items():
        settings = given.get(block, {})
        if (
            isinstance(settings, dict) and settings.get("order") != "normalize_then_sum"
        ):  # which is refused, and not for these
            given = given | {block: {field: value} | settings}
    return given
