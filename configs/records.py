"""What crosses a border between rooms: frozen records, one meaning a field, one JSON line each."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

Message = dict[str, str]
Prompt = str | list[Message]


class Record(BaseModel):
    """A frozen record; `model_dump_json()` is its JSON line and `model_validate_json(line)` reads it back."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Record):
    """One question that a policy is asked.

    >>> Problem(key="9f..", prompt="2 + 3 = ?", answer="5", source="chain_sum", split="train").split
    'train'
    """

    key: str
    """sha256 of the raw question and answer"""
    prompt: Prompt
    """chat messages or a plain string, before the model's chat template"""
    answer: str
    source: str
    meta: dict[str, Any] = {}
    """JSON that a scorer needs, for instance a reasoning-gym entry"""
    difficulty: float | None = None
    """in [0, 1], or None where it is unknown"""
    variants: list[Prompt] = []
    """other wordings of `prompt` that training draws from; empty where it asks `prompt` itself"""
    split: str
    """train, dev, test, or a round's regeneration shard such as regenerate_001"""


ABORTED = "aborted:"
"""what the finish reason of a response begins with whose generation was broken off"""


class Completion(Record):
    """One response that a policy wrote to a problem."""

    problem_key: str
    index: int
    """position within the group of its problem"""
    prompt_ids: list[int]
    token_ids: list[int]
    """the response, the end-of-sequence token included where it was sampled"""
    text: str
    """the response decoded without special tokens"""
    finish_reason: str
    """stop, length, or aborted:<why>"""
    logprobs: list[float]
    """one a token, of the distribution that was sampled: logits / temperature over the whole vocabulary"""
    policy_id: str
    step: int
    seed: int

    @property
    def is_aborted(self) -> bool:
        return self.finish_reason.startswith(ABORTED)


class Score(Record):
    """What the rewards say of one completion."""

    parts: dict[str, float | None]
    """a value an objective; None where that reward could not score"""
    unscored: dict[str, str] = {}
    """the reason for each None in `parts`"""
    total: float
    """weighted sum of the scored parts, for labels, best-of-N and reports; advantages are made from `parts`"""
    steps: list[tuple[int, float]] | None = None
    """(number of characters of the text up to its end, value) for each step of the reasoning that was checked, where a reward
    keeps them; otherwise None"""


RIGHT = 1.0
"""a checker's value from which a response is right"""


def is_right(value: float | None) -> bool:
    """Whether a checker's value says so; a response that it could not score is not."""
    return value is not None and value >= RIGHT


class PreferencePair(Record):
    """A better and a worse response to one problem."""

    problem_key: str
    prompt: Prompt
    chosen: str
    rejected: str
    margin: float
    """score of chosen minus score of rejected, in the labeler's units; 0 where people see no difference: such a pair teaches
    nothing and takes back what others said of the two"""
    objective: str
    """the reward model that learns from the pair"""
    labeler: str
    sources: tuple[str, str]
    """policy ids that wrote chosen and rejected"""
    round: int
    split: str
    """train or held_out; all pairs of a problem are on the same side"""


class ReviewItem(Record):
    """Two responses to one problem that people are asked to compare, in random order; who wrote which is not shown."""

    id: str
    kind: Literal["pair", "policies"]
    """labels for a reward model, or champion against challenger"""
    objective: str
    """the reward model that learns from it; `policies` where two policies are compared"""
    run: str
    round: int
    problem_key: str
    prompt: Prompt
    first: str
    second: str
    sources: tuple[str, str]
    """policy ids that wrote first and second"""
    split: str
    disagreement: float = 0.0
    """in [0, 1]: how far the rewards are from one mind about the two"""
    otherwise: float | None = None
    """first minus second by the labeler that stands in where nobody answers; None where it sees no difference"""


Choice = Literal["first", "second", "equal"]
CHOICES: tuple[Choice, ...] = get_args(Choice)


class Verdict(Record):
    """What one person said of a review item. Verdicts are added, never changed; a person's latest one counts."""

    item: str
    choice: Choice
    person: str
    given_ms: int
    via: Literal["mlflow", "file"]
    comment: str = ""


class Policy(Record):
    """A saved policy: `id` is the content hash of its weights."""

    path: str
    id: str
    round: int


class Estimate(Record):
    """A mean with its 95% interval over n problems."""

    estimate: float
    low: float
    high: float
    n: int


class EvalReport(Record):
    """What a policy did on a split."""

    policy_id: str
    split: str
    values: dict[str, Estimate]


class RewardModelReport(Record):
    """How a reward model did on held-out pairs, and whether it may be used."""

    id: str
    path: str
    accepted: bool
    reasons: list[str]
    """why it was refused; empty where it was accepted"""
    accuracy: Estimate | None
    """share of held-out pairs in which chosen scores higher, interval over problems; None without pairs"""
    margin: float | None
    """mean score of chosen minus mean score of rejected"""
    length_correlation: float | None
    """Pearson correlation of score and response length in tokens"""
    markup_correlation: float | None = None
    """Pearson correlation of score and the share of markup characters in the response"""
    calibration_error: float | None = None
    """expected calibration error of the probability that it gives to the response it prefers"""
    old_accuracy: Estimate | None = None
    """as `accuracy`, on held-out pairs of earlier rounds; None where there are none"""
    canary_wins: float | None = None
    """share of canaries, responses that deserve nothing, that score over the chosen response to the same problem"""
    num_train_pairs: int
    num_held_out_pairs: int
    num_replayed_pairs: int


class RoundState(Record):
    """What one round hands to the next."""

    round: int
    policy: Policy
    """what this round trained (round 0: what was given)"""
    champion: Policy
    initial_policy: Policy
    reward_models: dict[str, str]
    """id of the last accepted model by name; a name is absent until one was accepted"""
    curriculum: dict[str, Any] | None = None
    """epoch and pass rates that the round's training handed on; None before the first training"""
