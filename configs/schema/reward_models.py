"""The block `reward_models`: the models behind rewards of kind reward_model, and who labels the pairs that they learn from."""

from typing import Annotated, Literal

from pydantic import Field

from configs.schema.block import Block, Name, PositiveFloat, PositiveInt, SaveSteps, Share
from configs.schema.lora import LoraSettings
from configs.schema.operational import OPERATIONAL
from configs.schema.policy import PolicyConfig


class OutcomeLabeler(Block):
    """Right against wrong by one outcome reward."""

    kind: Literal["outcome"] = "outcome"
    reward: Name = Field(description="name of the outcome reward that labels")


class ScoreLabeler(Block):
    """Higher against lower weighted total of the rewards other than the trained reward models."""

    kind: Literal["score"] = "score"
    min_margin: PositiveFloat = Field(1e-3, description="smallest difference that makes a pair")


class JudgeLabeler(Block):
    """Higher against lower value of one judge."""

    kind: Literal["judge"] = "judge"
    reward: Name = Field(description="name of the reward of kind judge that labels; with weight 0 it labels alone")
    min_margin: PositiveFloat = Field(0.2, description="smallest difference that makes a pair")


class FileLabeler(Block):
    """Pairs that somebody labelled before, in the usual form: prompt, chosen, rejected. Each round draws from them."""

    kind: Literal["file"] = "file"
    path: str = Field(min_length=1, description="JSONL file, or hub id or folder of a data set")
    name: str | None = Field(None, description="configuration of the data set")
    revision: str | None = Field(None, description="commit of a hub id")
    dataset_split: str = Field("train", description="split of the data set that is read")
    prompt: str = Field(
        "prompt",
        description="column of the prompt, a text or chat messages; without it, what the two conversations begin with",
    )
    chosen: str = Field("chosen", description="column of the better response, a text or a whole conversation")
    rejected: str = Field("rejected", description="column of the worse one")


AutomaticLabeler = Annotated[OutcomeLabeler | ScoreLabeler | JudgeLabeler, Field(discriminator="kind")]


FOUR_WEEKS = 28 * 24 * 60
WaitMinutes = Annotated[float, Field(ge=0, le=FOUR_WEEKS, allow_inf_nan=False), OPERATIONAL]


class PeopleLabeler(Block):
    """People, in MLflow's review queue or in a file that they fill in (`regroup review`)."""

    kind: Literal["people"] = "people"
    num_items: PositiveInt = Field(
        64,
        description="most pairs of responses that a round asks about; those on which reward model, judge and checker disagree "
        "come first",
    )
    wait_minutes: WaitMinutes = Field(
        0,
        description="how long the next round waits for answers, from when it asked; then it goes on with those there are",
    )
    enough: Annotated[PositiveInt | None, OPERATIONAL] = Field(
        None, description="answered items from which it waits no longer; default: all of them"
    )
    otherwise: AutomaticLabeler | None = Field(
        None, description="who labels what people were not asked or did not answer in time; default: nobody"
    )


Labeler = Annotated[
    OutcomeLabeler | ScoreLabeler | JudgeLabeler | FileLabeler | PeopleLabeler, Field(discriminator="kind")
]


class TrainedRewardModel(Block):
    """A reward model that each round trains on what the policy wrote."""

    kind: Literal["trained"] = "trained"
    labeler: Labeler = Field(description="who says which completion is better")
    start_from: Literal["last_accepted", "backbone"] = Field(
        "last_accepted",
        description="train the last accepted one on, the first round's from the backbone; or begin each round anew from the backbone",
    )
    backbone: PolicyConfig | None = Field(
        None,
        description="a causal language model, which gets a head, or a folder of a ready-made classifier with one output; "
        "default: the champion",
    )
    lora: LoraSettings | None = Field(
        None,
        description="train an adapter, which is merged at the end, and the head instead of all weights; it wants a higher learning_rate",
    )
    pairs_per_problem: PositiveInt = Field(4, description="most pairs that one problem gives")
    max_pairs: PositiveInt = Field(2048, description="most training pairs of a round, replayed ones included")
    held_out_share: Share = Field(0.25, description="share of the problems whose pairs only check")
    replay_fraction: Share = Field(0.1, description="share of the training pairs that come from earlier rounds")
    learning_rate: PositiveFloat = Field(2e-5, description="of AdamW")
    epochs: PositiveInt = Field(1, description="passes over the pairs")
    batch_size: PositiveInt = Field(16, description="pairs per update")
    max_length: PositiveInt = Field(
        1024, description="tokens of prompt and response; longer pairs are dropped and counted"
    )
    save_steps: SaveSteps = 100
    min_pairs: PositiveInt = Field(50, description="fewest training pairs for a model to be trained and accepted")
    min_accuracy: Share = Field(0.5, description="the lower bound of held-out accuracy must be over this")
    min_old_accuracy: Share = Field(
        0.5, description="the upper bound of its accuracy on held-out pairs of earlier rounds must not be under this"
    )
    max_old_pairs: PositiveInt = Field(64, description="most of those pairs that are scored")
    max_calibration_error: Share | None = Field(
        None, description="expected calibration error that is allowed; default: it is measured and refuses nothing"
    )
    max_length_correlation: Share | None = Field(
        None, description="absolute correlation with length that is allowed; default: any"
    )
    max_markup_correlation: Share | None = Field(
        None, description="absolute correlation with the share of markup characters that is allowed; default: any"
    )
    max_canary_wins: Share | None = Field(
        None,
        description="share of canaries (empty, the question again, nonsense, words to a judge) that may score over the chosen "
        "response; default: any",
    )
    when_refused: Literal["last_accepted", "without"] = Field(
        "last_accepted", description="what the round uses instead of a refused model"
    )

    @property
    def automatic_labeler(self) -> OutcomeLabeler | ScoreLabeler | JudgeLabeler | None:
        """Who makes pairs of what the policy wrote: the labeler, or the one that stands in for people; a file makes none."""
        labeler = self.labeler.otherwise if isinstance(self.labeler, PeopleLabeler) else self.labeler
        return None if isinstance(labeler, FileLabeler) else labeler


class FrozenRewardModel(Block):
    """A ready-made sequence classifier with one output."""

    kind: Literal["frozen"] = "frozen"
    path: str = Field(min_length=1, description="hub id or folder")
    revision: str | None = Field(None, description="commit of a hub id")
    max_length: PositiveInt = Field(1024, description="tokens of prompt and response; longer texts are unscored")


RewardModel = Annotated[TrainedRewardModel | FrozenRewardModel, Field(discriminator="kind")]
