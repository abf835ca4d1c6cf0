"""The frozen records that the packages exchange. Each is stored as one JSON line, and each field has one meaning."""

from __future__ import annotations

import datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from configs.paths import StoredPath

Message = dict[str, str]
Prompt = str | list[Message]


class Record(BaseModel):
    """Base of all records; `model_dump_json()` gives the JSON line and `model_validate_json(line)` reads it back."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Record):
    """One question for the policy, with its gold answer.

    >>> Problem(key="9f..", prompt="2 + 3 = ?", answer="5", source="chain_sum", split="train").split
    'train'
    """

    key: str
    """sha256 of the raw question and answer, in hex"""
    prompt: Prompt
    """chat messages or a plain string, before the model's chat template"""
    answer: str | None
    """the gold answer; None where the problem has none, while the empty text is an answer like any other"""
    other_answers: list[str] = []
    """further gold answers, each of which is right too"""
    answer_type: str = ""
    """what the gold answer is read as: number, expression, tuple, words, empty, ..., unread or broken; "" without one"""
    source: str
    meta: dict[str, Any] = {}
    """JSON data that a scorer needs, for instance a reasoning-gym entry"""
    difficulty: float | None = None
    """in [0, 1]; None where it is unknown"""
    variants: list[Prompt] = []
    """rewordings of the prompt, one of which training draws at each step; where empty, training uses `prompt`"""
    split: str
    """train, dev, test, or the regeneration shard of a round, such as regenerate_001"""

    @property
    def golds(self) -> list[str]:
        """All gold answers, any of which is right; empty where the problem has none."""
        return [] if self.answer is None else [self.answer, *self.other_answers]


ABORTED = "aborted:"
"""prefix of the finish reason of an aborted response"""


class Completion(Record):
    """One response of a policy to a problem."""

    problem_key: str
    index: int
    """position in the group of its problem"""
    prompt_ids: list[int]
    token_ids: list[int]
    """the response tokens, including the end-of-sequence token if it was sampled"""
    text: str
    """the response decoded without special tokens, except those that mark thoughts"""
    begun: str = ""
    """the end of the rendered prompt that belongs to the response: a mark that opens a thought, such as `<think>`; often
    empty"""
    finish_reason: str
    """stop, length, or aborted:<reason>"""
    logprobs: list[float]
    """log-probability of each token of `token_ids` under softmax(logits / temperature) over the whole vocabulary"""
    policy_id: str
    step: int
    """of the training, at which it was written; 0 elsewhere"""
    seed: int

    @property
    def response(self) -> str:
        """The text with what the prompt began of it. It is read to tell thoughts from the answer, or the format of the
        whole."""
        return self.begun + self.text

    @property
    def is_aborted(self) -> bool:
        return self.finish_reason.startswith(ABORTED)


class Score(Record):
    """The scores that the rewards gave to one completion."""

    parts: dict[str, float | None]
    """{objective: value}; None where the reward could not score the completion. An objective that does not apply to the
    problem is absent"""
    unscored: dict[str, str] = {}
    """{objective: reason} for each None in `parts`"""
    faults: dict[str, str] = {}
    """{objective: reason} for each part that is 0 because its checker failed through the response's fault"""
    total: float
    """weighted sum of the scored parts, for labels, best-of-N and reports; advantages are computed from `parts`"""
    steps: list[tuple[int, float]] | None = None
    """(end, value) of each reasoning step that was checked; `end` is the character offset in the text at which the step
    ends. None unless a reward keeps its steps (`reduce: per_step`)"""


RIGHT = 1.0
"""lowest value of the checker that counts as right"""


def is_right(value: float | None) -> bool:
    """Whether a checker's value counts as right; None (unscored) does not."""
    return value is not None and value >= RIGHT


def verdict(score: Score, checker: str | None) -> bool | None:
    """Whether the reward `checker` calls the response right; None where it could not score it, does not apply, or is no
    reward."""
    value = score.parts.get(checker or "")
    return None if value is None else is_right(value)


class PreferencePair(Record):
    """A better and a worse response to one problem."""

    problem_key: str
    prompt: Prompt
    chosen: str
    rejected: str
    margin: float
    """score of chosen minus score of rejected, in the labeler's units; 0 where people see no difference. A pair of
    margin 0 is not trained on and overrides other labelers' pairs of the same two responses"""
    objective: str
    """name of the reward model that is trained on the pair"""
    labeler: str
    sources: tuple[str, str]
    """ids of the policies that wrote chosen and rejected"""
    round: int
    split: str
    """train or held_out, the same for all pairs of a problem"""


class ReviewItem(Record):
    """Two responses to one problem, in random order, for people to compare without seeing which policy wrote which."""

    id: str
    kind: Literal["pair", "policies"]
    """pair: a label for a reward model; policies: champion against challenger"""
    objective: str
    """name of the reward model that is trained on the answer; `policies` where two policies are compared"""
    run: str
    round: int
    problem_key: str
    prompt: Prompt
    first: str
    second: str
    sources: tuple[str, str]
    """ids of the policies that wrote first and second"""
    split: str
    disagreement: float = 0.0
    """disagreement of the rewards about the two responses, in [0, 1]: 0 where none prefers
    the other one, 1 where they are evenly split"""
    otherwise: float | None = None
    """score of first minus score of second by the fallback labeler, used where nobody answers; None without a fallback,
    or where the difference is too small for a pair"""


Choice = Literal["first", "second", "equal"]
CHOICES: tuple[Choice, ...] = get_args(Choice)


class Verdict(Record):
    """One person's answer to a review item. Verdicts are only added, never changed; a person's latest one counts."""

    item: str
    choice: Choice
    person: str
    given_ms: int
    via: Literal["mlflow", "file"]
    comment: str = ""


class TemplateSettings(Record):
    """What a run gives to the chat templates that it renders with."""

    variables: dict[str, Any] = {}
    """JSON values by name"""
    join_system: bool = False
    """whether the system message is put in front of the first user message"""
    date: datetime.date | None = None
    """the day that a template gets as today's; None: the day on which it renders"""
    as_saved: bool = False
    """whether what an earlier run gave to the template stays in it"""


class Policy(Record):
    """A saved policy; `id` is the content hash of its weights."""

    path: StoredPath
    id: str
    round: int


class Estimate(Record):
    """A mean with its 95% interval over n problems."""

    estimate: float
    low: float
    high: float
    n: int


class EvalReport(Record):
    """The measurements of one policy on one split."""

    policy_id: str
    split: str
    values: dict[str, Estimate]
    unscored: dict[str, dict[str, int]] = {}
    """{reward: {reason: number of responses}} that the reward applies to and could not score; they count in no estimate"""


class RewardModelReport(Record):
    """A reward model's measurements on held-out pairs, and whether it was accepted."""

    id: str
    path: str
    accepted: bool
    reasons: list[str]
    """why it was refused; empty if it was accepted"""
    accuracy: Estimate | None
    """share of held-out pairs in which chosen scores higher, interval over problems; None without held-out pairs"""
    margin: float | None
    """mean score of chosen minus mean score of rejected; None without held-out pairs"""
    length_correlation: float | None
    """Pearson correlation of score and response length in tokens"""
    markup_correlation: float | None = None
    """Pearson correlation of score and the share of markup characters in the response"""
    calibration_error: float | None = None
    """expected calibration error of the predicted probability that the preferred response is the chosen one"""
    old_accuracy: Estimate | None = None
    """accuracy on held-out pairs of earlier rounds; None without such pairs"""
    canary_wins: float | None = None
    """share of canaries (worthless responses) that score higher than the chosen response to the same problem"""
    num_train_pairs: int
    num_held_out_pairs: int
    num_replayed_pairs: int
    left_out: dict[str, int] = {}
    """{reason: pairs that were neither trained nor checked on, and rows of a preference file that made no pair}"""


class RoundState(Record):
    """The state that one round passes to the next: names and ids, never data. The curriculum's pass rates, for instance,
    stay in the file that the round's training wrote."""

    round: int
    policy: Policy
    """the policy that this round trained; in round 0, the policy that the run started from"""
    champion: Policy
    initial_policy: Policy
    reward_models: dict[str, str]
    """{name: id of the last accepted model}; a name is absent until one of its models was accepted"""

    @model_validator(mode="before")
    @classmethod
    def _without_curriculum(cls, data: Any) -> Any:
        """Older versions wrote the curriculum here too; it is the same as in the round's own file."""
        return {name: value for name, value in data.items() if name != "curriculum"} if isinstance(data, dict) else data
