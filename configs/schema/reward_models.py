"""The block `reward_models`: the models behind rewards of kind reward_model, and the labelers of their pairs."""

from typing import Annotated, Literal

from pydantic import Field

from configs.schema.block import (
    Block,
    EnvironmentVariable,
    Name,
    PositiveFloat,
    PositiveInt,
    SaveSteps,
    ServerUrl,
    Share,
)
from configs.schema.lora import LoraSettings
from configs.schema.operational import OPERATIONAL
from configs.schema.policy import ModelSource
from configs.schema.preferences import FileLabeler


class OutcomeLabeler(Block):
    """Pairs of a right and a wrong response, as decided by one outcome reward."""

    kind: Literal["outcome"] = "outcome"
    reward: Name = Field(description="name of the outcome reward that decides")


class ScoreLabeler(Block):
    """Pairs ordered by the weighted sum of all rewards except those of kind reward_model."""

    kind: Literal["score"] = "score"
    min_margin: PositiveFloat = Field(1e-3, description="smallest difference of the weighted sums that makes a pair")


class JudgeLabeler(Block):
    """Pairs ordered by the value of one judge."""

    kind: Literal["judge"] = "judge"
    reward: Name = Field(
        description="name of the reward of kind judge that decides; with weight 0 it only labels and is not trained "
        "on directly"
    )
    min_margin: PositiveFloat = Field(0.2, description="smallest difference of the judge's values that makes a pair")


AutomaticLabeler = Annotated[OutcomeLabeler | ScoreLabeler | JudgeLabeler, Field(discriminator="kind")]


FOUR_WEEKS = 28 * 24 * 60
WaitMinutes = Annotated[float, Field(ge=0, le=FOUR_WEEKS, allow_inf_nan=False), OPERATIONAL]


class PeopleLabeler(Block):
    """Pairs labelled by people, in MLflow's review queue or in a file that they fill in (`regroup review`)."""

    kind: Literal["people"] = "people"
    num_items: PositiveInt = Field(
        64,
        description="most pairs of responses that people are asked about per round; those on which the rewards "
        "(checker, judge, reward model, process, python) disagree most come first",
    )
    wait_minutes: WaitMinutes = Field(
        0,
        description="minutes that the next round waits for answers after asking; then it goes on with the answers it "
        "has",
    )
    enough: Annotated[PositiveInt | None, OPERATIONAL] = Field(
        None, description="stop waiting once this many items are answered; default: all of them"
    )
    otherwise: AutomaticLabeler | None = Field(
        None,
        description="fallback labeler for pairs that people were not asked about or did not answer in time; default: "
        "none",
    )


Labeler = Annotated[
    OutcomeLabeler | ScoreLabeler | JudgeLabeler | FileLabeler | PeopleLabeler, Field(discriminator="kind")
]


class TrainedRewardModel(Block):
    """A reward model that is trained in each round on pairs of the policy's responses, or on a file of pairs."""

    kind: Literal["trained"] = "trained"
    labeler: Labeler = Field(description="decides which response of a pair is better")
    start_from: Literal["last_accepted", "backbone"] = Field(
        "last_accepted",
        description="last_accepted: go on training the last accepted model (the backbone until there is one); "
        "backbone: start each round from the backbone",
    )
    backbone: ModelSource | None = Field(
        None,
        description="model to start from: a causal language model, to which a scalar head is added, or a folder with "
        "a sequence classifier with one output; default: the champion",
    )
    lora: LoraSettings | None = Field(
        None,
        description="train the head and a low-rank adapter, which is merged at the end, instead of all weights; needs "
        "a higher learning_rate",
    )
    pairs_per_problem: PositiveInt = Field(4, description="most pairs of one problem")
    max_pairs: PositiveInt = Field(2048, description="most training pairs of a round, with replayed ones")
    held_out_share: Share = Field(
        0.25, description="share of the problems whose pairs are held out for the check of the model"
    )
    replay_fraction: Share = Field(0.1, description="share of the training pairs that are replayed from earlier rounds")
    learning_rate: PositiveFloat = Field(2e-5, description="learning rate of AdamW")
    epochs: PositiveInt = Field(1, description="passes over the training pairs")
    batch_size: PositiveInt = Field(16, description="pairs per update")
    max_length: PositiveInt = Field(
        1024, description="most tokens of prompt and response; pairs with a longer one neither train nor check"
    )
    save_steps: SaveSteps = 100
    min_pairs: PositiveInt = Field(50, description="fewest training pairs with which a model is trained and accepted")
    min_accuracy: Share = Field(
        0.5, description="a model is refused unless the lower bound of its held-out accuracy is over this"
    )
    min_old_accuracy: Share = Field(
        0.5,
        description="a model is refused if the upper bound of its accuracy on held-out pairs of earlier rounds is "
        "under this",
    )
    max_old_pairs: PositiveInt = Field(64, description="most held-out pairs of earlier rounds that are scored")
    max_calibration_error: Share | None = Field(
        None, description="largest allowed expected calibration error; default: measured, but no reason to refuse"
    )
    max_length_correlation: Share | None = Field(
        None, description="largest allowed absolute correlation of score and response length; default: any"
    )
    max_markup_correlation: Share | None = Field(
        None, description="largest allowed absolute correlation of score and share of markup characters; default: any"
    )
    max_canary_wins: Share | None = Field(
        None,
        description="largest allowed share of canaries (an empty response, the question repeated, nonsense, "
        "instructions to a judge) that score over the chosen response; default: any",
    )
    when_refused: Literal["last_accepted", "without"] = Field(
        "last_accepted", description="what the round uses instead of a refused model: the last accepted one, or none"
    )

    @property
    def automatic_labeler(self) -> OutcomeLabeler | ScoreLabeler | JudgeLabeler | None:
        """The labeler of the policy's responses: `labeler`, or the fallback where that is people; None for a file."""
        labeler = self.labeler.otherwise if isinstance(self.labeler, PeopleLabeler) else self.labeler
        return None if isinstance(labeler, FileLabeler) else labeler


class FrozenRewardModel(Block):
    """An existing sequence classifier with one output, used without training."""

    kind: Literal["frozen"] = "frozen"
    path: str = Field(min_length=1, description="hub id or folder")
    revision: str | None = Field(None, description="commit of the hub repository")
    max_length: PositiveInt = Field(1024, description="most tokens of prompt and response; longer ones are unscored")


class ServedRewardModel(Block):
    """An existing sequence classifier with one output that a server computes, such as vLLM's; used without training."""

    kind: Literal["served"] = "served"
    url: Annotated[ServerUrl, OPERATIONAL] = Field(
        description="address of the server, without the path of an endpoint, user name, password and query",
    )
    model: Annotated[str, OPERATIONAL] = Field(min_length=1, description="name of the model at the server")
    path: str = Field(
        min_length=1,
        description="hub id or folder of the model's config.json, tokenizer and, if it was trained here, calibration.json; its "
        "weights are not read and need not be there",
    )
    revision: str | None = Field(None, description="commit of the hub repository")
    version: Annotated[str | None, OPERATIONAL] = Field(
        None,
        min_length=1,
        description="name of the weights that the server holds, of your own choice. Give another one when they change: evaluations are then "
        "made anew; policies and pairs stand",
    )
    max_length: PositiveInt = Field(1024, description="most tokens of prompt and response; longer ones are unscored")
    api_key_env: Annotated[EnvironmentVariable | None, OPERATIONAL] = Field(
        None, description="environment variable that holds the server's key; default: no key is sent"
    )
    concurrency: Annotated[PositiveInt, OPERATIONAL] = Field(
        32, description="concurrent requests, each with one conversation; vLLM computes them together"
    )
    timeout_s: Annotated[PositiveFloat, OPERATIONAL] = Field(
        60.0, description="seconds for one request; a server that takes longer counts as away"
    )
    patience_s: Annotated[float, OPERATIONAL] = Field(
        600.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds to wait for a server that is away; after that the responses are unscored",
    )


RewardModel = Annotated[TrainedRewardModel | FrozenRewardModel | ServedRewardModel, Field(discriminator="kind")]
