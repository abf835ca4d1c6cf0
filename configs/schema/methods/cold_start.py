"""The block `cold_start`: supervised fine-tuning of the given policy before round 0 measures it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from configs.schema.block import Block, PositiveFloat, PositiveInt
from configs.schema.rewards import asking

if TYPE_CHECKING:
    from configs.schema.config import Config

Text = Annotated[str, Field(min_length=1)]


class DemonstrationsConfig(Block):
    """Questions with the responses that the policy is to imitate: files or a data set, as those of `problems.sources`."""

    path: Text | Annotated[list[str], Field(min_length=1)] = Field(
        description="a file, a pattern such as `data/*.parquet`, a list of these, a folder, or a data set of the hub"
    )
    name: str | None = Field(None, description="configuration of the data set, for instance `main`")
    revision: str | None = Field(None, description="commit of the hub repository")
    dataset_split: str = Field("train", description="split of the data set to read, or a part: `train[:1000]`")
    question: Text = Field(
        "question",
        description="column with the question: a text, a conversation (of which what follows the last user message is left out), or a "
        "template of columns. `problems.template` and `problems.system` stand around it as around a problem's",
    )
    response: Text = Field(
        "response",
        description="column with the wanted response: a text, or a conversation whose last message is the assistant's, which may be "
        "the column of the question, such as `messages`",
    )


class OwnSamplesConfig(Block):
    """The best of the given policy's own responses, as `method: {kind: best_of_n, mode: offline}` takes them in a round."""

    num_problems: PositiveInt = Field(
        128, description="training problems that are asked, drawn by the seed; all of them where there are fewer"
    )
    group_size: Annotated[int, Field(ge=2)] = Field(
        8, description="responses to each problem, of which the best is imitated"
    )
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None,
        description="the weighted sum of rewards that the best response must be over to be imitated; default: none",
    )


class ColdStartConfig(Block):
    """Supervised fine-tuning of the given policy, once, before round 0 measures it; a follow-on run has none, as it goes on from a
    champion. What is not here is that of `grpo_config`: schedule, optimizer, precision, `micro_batch_tokens`, `lora`, `save_steps`, and for
    own samples the temperature."""

    demonstrations: DemonstrationsConfig | None = Field(None, description="imitate given responses")
    own_samples: OwnSamplesConfig | None = Field(None, description="imitate the policy's own best responses")
    learning_rate: PositiveFloat = Field(1e-5, description="peak learning rate of AdamW")
    epochs: PositiveInt = Field(1, description="passes over the responses")
    batch_size: PositiveInt = Field(16, description="responses per update")

    @model_validator(mode="after")
    def _one_kind(self) -> ColdStartConfig:
        if (self.demonstrations is None) == (self.own_samples is None):
            given = "both" if self.demonstrations is not None else "neither"
            raise ValueError(
                f"cold_start has {given} of demonstrations and own_samples; give one of them, or leave cold_start out"
            )
        return self


def check_cold_start(config: Config) -> None:
    """Refuse what does not go with a cold start.

    Raises:
        ValueError: names the field, its value and the remedy.
    """
    cold = config.cold_start
    if cold is None:
        return
    if config.launcher.shard:
        raise ValueError(
            "launcher.shard=true splits the policy among ranks, and one process does the whole of cold_start; use shard=false, or "
            "fine-tune before the run and name the result in policy.path"
        )
    later = {reward.name for reward in asking(config.rewards, config.trained_reward_models)}
    if cold.own_samples is not None and not any(r.weight_at(0) for r in config.rewards if r.name not in later):
        raise ValueError(
            f"cold_start.own_samples takes the best responses by the rewards, and of those of this run, {[r.name for r in config.rewards]}, "
            "each asks a reward model that round 1 trains first, or has no weight in round 0; add a reward that has one and can score "
            "before, or use cold_start.demonstrations"
        )
