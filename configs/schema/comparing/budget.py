"""The block `budget`: the most that a round's training of the policy spends."""

from pydantic import Field, model_validator

from configs.schema.block import Block, PositiveFloat, PositiveInt
from configs.schema.grpo import GrpoConfig


class BudgetConfig(Block):
    """The most that a round's training of the policy spends: tokens or seconds, one of the two. It ends after the step that
    reaches it, `epochs` and `max_updates` may end it earlier, and the learning rate's schedule is that of these two."""

    generated_tokens: PositiveInt | None = Field(
        None, description="tokens that the policy writes in training, those of refused groups included"
    )
    train_seconds: PositiveFloat | None = Field(
        None,
        description="seconds of training steps, over all calls; checkpoints and pauses are left out. A resumed training may end at "
        "another step than one that was not interrupted, as times differ",
    )

    @model_validator(mode="after")
    def _one_of_the_two(self) -> "BudgetConfig":
        if (self.generated_tokens is None) == (self.train_seconds is None):
            raise ValueError("a budget is either generated_tokens or train_seconds; give exactly one of them")
        return self

    def __str__(self) -> str:
        """The budget as its field is written, `generated_tokens=500`."""
        return ", ".join(f"budget.{name}={value:g}" for name, value in self if value is not None)

    def refuse_less_than_a_step(self, grpo: GrpoConfig) -> None:
        """Check that a step fits, as far as that is known before training: a response has at least one token.

        Raises:
            ValueError: `generated_tokens` is under `batch_size`.
        """
        if self.generated_tokens is not None and self.generated_tokens < grpo.batch_size:
            raise ValueError(
                f"budget.generated_tokens={self.generated_tokens} is less than one step, which writes grpo_config.batch_size="
                f"{grpo.batch_size} responses of at least one token; raise it, or lower batch_size"
            )
