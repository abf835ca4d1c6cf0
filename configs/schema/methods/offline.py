"""Methods that learn from the samples of the round before, and what goes with methods whose samples are there before they train.

Of `grpo_config` they read what is of the optimizer (`schedule`, `warmup_updates`,
`adam_betas`, `weight_decay`, `max_grad_norm`), of the arithmetic (`precision`, `deterministic`, `micro_batch_tokens`,
`activation_checkpointing`), `lora` and `save_steps`; the sizes and the loss of the loop that samples are not theirs, and what
would switch on a part of that loop is refused.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from configs.schema.block import Block, PositiveFloat, PositiveInt
from configs.schema.grpo import GrpoConfig


class PairSettings(Block):
    """Fields of the methods that learn from preference pairs."""

    beta: PositiveFloat = Field(
        0.1,
        description="strength with which the policy is held to the one that the round starts from; IPO calls it tau",
    )
    learning_rate: PositiveFloat = Field(
        1e-6,
        description="peak learning rate of AdamW; one of the size of GRPO's lets small models collapse (arXiv 2603.19335)",
    )
    epochs: PositiveInt = Field(1, description="passes over the pairs")
    batch_size: PositiveInt = Field(16, description="pairs per update")
    pairs_per_problem: PositiveInt = Field(
        1,
        description="most pairs of a problem: its best against its worst response, then the second best against the second worst",
    )
    min_margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="what the better response's weighted sum of rewards must be over the worse one's by more than"
    )
    min_pairs: PositiveInt = Field(
        16, description="with fewer pairs nothing is trained: the round's policy is the champion, and the run says so"
    )


class DpoMethod(PairSettings):
    """Direct preference optimization (arXiv 2305.18290) on pairs of the champion's responses of the round before."""

    kind: Literal["dpo"] = "dpo"


class IpoMethod(PairSettings):
    """The same pairs with the squared loss of IPO (arXiv 2310.12036), which stops at a margin."""

    kind: Literal["ipo"] = "ipo"


def check_offline(told: str, grpo: GrpoConfig, *, rolling_back: Sequence[str], curriculum: str, ranks: int) -> None:
    """Refuse what does not go with a method whose samples are all there before it trains.

    Args:
        told: the method, for messages, such as `method.kind=dpo`.
        rolling_back: metrics of the watch rules that roll back.
        curriculum: its kind.
        ranks: number of processes that train.

    Raises:
        ValueError: names the field, its value and the remedy.
    """
    for field, (given, off) in _of_the_loop(grpo).items():
        if given != off:
            raise ValueError(
                f"{field}={given} is of a training that samples, and {told} learns from samples that are there; use {off}, or leave "
                "it out"
            )
    if curriculum != "none":
        raise ValueError(
            f"curriculum.kind={curriculum} chooses problems during training, and {told} asks none then; use none"
        )
    if ranks > 1:
        raise ValueError(f"launcher.num_processes={ranks} does not go with {told}, which one process trains; use 1")
    if rolling_back:
        raise ValueError(
            f"watch rule on {rolling_back[0]} has action roll_back, which {told} cannot do; use stop or warn"
        )


def _of_the_loop(grpo: GrpoConfig) -> dict[str, tuple[Any, Any]]:
    """{field: (value, value that switches it off)} of what a training that samples can do, and an offline one cannot."""
    staleness = grpo.vllm.max_staleness if grpo.vllm is not None else 0
    return {
        "grpo_config.kl_coefficient": (grpo.kl_coefficient, 0.0),
        "grpo_config.updates_per_batch": (grpo.updates_per_batch, 1),
        "grpo_config.truncated": (grpo.truncated, "keep"),
        "grpo_config.refill": (grpo.refill, 0),
        "grpo_config.response_cache.share": (grpo.response_cache.share, 0.0),
        "grpo_config.row_sampling.share": (grpo.row_sampling.share, 1.0),
        "grpo_config.early_stop": ("on" if grpo.early_stop.is_on else "off", "off"),
        "grpo_config.vllm.max_staleness": (staleness, 0),
    }


def check_pairs(method: PairSettings, *, num_problems: int, group_size: int) -> None:
    """Refuse what the samples of a regeneration, of that many problems and responses to each, can never give.

    Raises:
        ValueError: names the field, its value and the remedy.
    """
    per_group, wanted = group_size // 2, method.pairs_per_problem
    if wanted > per_group:
        raise ValueError(
            f"method.pairs_per_problem={wanted} needs regeneration.group_size >= {2 * wanted}, not {group_size}: a "
            f"response is in one pair; use at most {per_group}"
        )
    if (most := wanted * num_problems) < method.min_pairs:
        raise ValueError(
            f"method.min_pairs={method.min_pairs} can never be reached: regeneration.num_problems={num_problems} make "
            f"{most} pairs at most; lower min_pairs, or raise num_problems"
        )
