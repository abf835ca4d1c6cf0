"""Settings of a low-rank adapter, shared by policies and reward models."""

from pydantic import Field

from configs.schema.block import Block, PositiveInt


class LoraSettings(Block):
    """A low-rank adapter (arXiv 2106.09685) that is trained instead of all weights."""

    rank: PositiveInt = Field(16, description="rank of the update to each weight matrix")
    alpha: PositiveInt = Field(32, description="the update is scaled by alpha / rank")
    target_modules: str | list[str] = Field(
        "all-linear",
        description="suffixes of the names of the modules to adapt, or all-linear: every linear layer except the "
        "output layer",
    )
