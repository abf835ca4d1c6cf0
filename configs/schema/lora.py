"""The settings that every low-rank adapter has."""

from pydantic import Field

from configs.schema.block import Block, PositiveInt


class LoraSettings(Block):
    """Train a low-rank adapter (arXiv 2106.09685) in place of all weights."""

    rank: PositiveInt = Field(16, description="of the change to each matrix")
    alpha: PositiveInt = Field(32, description="the change is scaled by alpha / rank")
    target_modules: str | list[str] = Field(
        "all-linear", description="modules by the end of their names, or all-linear: every linear layer but the last"
    )
