"""Checks whether a reward model is good enough to train with, above all by its accuracy on held-out problems."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.disk.files import weights_id
from configs.records import Estimate, PreferencePair, RewardModelReport, TemplateSettings
from configs.schema.reward_models import TrainedRewardModel
from configs.seeds import rng_for
from reward_training.judges.canaries import canaries
from reward_training.reward_models.distinct import distinct_pairs
from reward_training.reward_models.scores import RewardModelScorer
from reward_training.statistics import wilson_interval
from reward_training.transformer.chat_template import PLAIN
from reward_training.transformer.rendering import conversation_text, try_conversation_text

BOOTSTRAP_DRAWS = 2000
CANARY_PROBLEMS = 16
CALIBRATION_BINS = 10
MARKUP = frozenset("*#`_|<>{}\\$")


def check_reward_model(
    folder: Path,
    held_out: list[PreferencePair],
    old_held_out: list[PreferencePair],
    *,
    config: TrainedRewardModel,
    num_train_pairs: int,
    num_replayed_pairs: int,
    seed: int,
    template: TemplateSettings = PLAIN,
) -> RewardModelReport:
    """Score held-out pairs, and report whether the model may be used, with a reason for each bound that it misses.

    `old_held_out` are held-out pairs of earlier rounds, which show whether the model has forgotten what it knew. Pairs
    with a conversation over `max_length` tokens are left out of all measurements and counts, and so are those that the
    chat template, with the run's `template` settings, renders alike or refuses.
    """
    with RewardModelScorer(folder, max_length=config.max_length, template=template) as scorer:
        new = _score_pairs(scorer, held_out)
        old = _score_pairs(scorer, _sample(old_held_out, config.max_old_pairs, seed))
        canary_wins = _canary_wins(scorer, new)
        lengths = [len(scorer.tokenizer.encode(text, add_special_tokens=False)) for text in new.texts]
    report = RewardModelReport(
        id=weights_id(folder),
        path=str(folder),
        accepted=False,
        reasons=[],
        accuracy=accuracy_over_problems(new.pairs, new.is_right, seed) if new.pairs else None,
        margin=float(new.margins.mean()) if new.pairs else None,
        length_correlation=correlation(new.scores, np.array(lengths)),
        markup_correlation=correlation(new.scores, np.array([markup_share(text) for text in new.texts])),
        calibration_error=calibration_error(new.margins) if new.pairs else None,
        old_accuracy=accuracy_over_problems(old.pairs, old.is_right, seed) if old.pairs else None,
        canary_wins=canary_wins,
        num_train_pairs=num_train_pairs,
        num_held_out_pairs=len(new.pairs),
        num_replayed_pairs=num_replayed_pairs,
    )
    reasons = refusals(report, config)
    return report.model_copy(update={"accepted": not reasons, "reasons": reasons})


@dataclass(frozen=True)
class _Scored:
    """P pairs with the raw scores of both responses."""

    pairs: list[PreferencePair]
    chosen: np.ndarray
    """(P,)"""
    rejected: np.ndarray
    """(P,)"""

    @property
    def margins(self) -> np.ndarray:
        return np.asarray(self.chosen - self.rejected)

    @property
    def is_right(self) -> np.ndarray:
        return np.asarray(self.chosen > self.rejected)

    @property
    def scores(self) -> np.ndarray:
        """(2P,), the chosen responses first."""
        return np.concatenate([self.chosen, self.rejected])

    @property
    def texts(self) -> list[str]:
        """The 2P responses, in the order of `scores`."""
        return [pair.chosen for pair in self.pairs] + [pair.rejected for pair in self.pairs]


def _sample(pairs: list[PreferencePair], max_pairs: int, seed: int) -> list[PreferencePair]:
    """At most `max_pairs` random pairs, in their order."""
    chosen = rng_for(seed, "old held-out pairs").permutation(len(pairs))[:max_pairs]
    return [pairs[i] for i in sorted(chosen)]


def _score_pairs(scorer: RewardModelScorer, held_out: list[PreferencePair]) -> _Scored:
    found = distinct_pairs(scorer.tokenizer, held_out)
    pairs = [pair for pair, ids in zip(found.pairs, found.ids, strict=True) if ids.fits(scorer.max_length)]
    texts = [(pair, pair.chosen) for pair in pairs] + [(pair, pair.rejected) for pair in pairs]
    scores = np.array(scorer.scores([conversation_text(scorer.tokenizer, pair.prompt, text) for pair, text in texts]))
    return _Scored(pairs, scores[: len(pairs)], scores[len(pairs) :])


def _canary_wins(scorer: RewardModelScorer, scored: _Scored) -> float | None:
    """Share of canaries that score higher than the chosen response, on one pair each of CANARY_PROBLEMS problems.

    Canaries over `max_length`, and those that the chat template refuses (an empty response), are left out. None if there
    are no pairs, or no canary is left.
    """
    if not scored.pairs:
        return None
    first_pairs = {pair.problem_key: i for i, pair in reversed(list(enumerate(scored.pairs)))}
    pair_indices = sorted(first_pairs.values())[:CANARY_PROBLEMS]
    tries = [(i, text) for i in pair_indices for text in canaries(scored.pairs[i].prompt)]
    rendered = [(i, try_conversation_text(scorer.tokenizer, scored.pairs[i].prompt, text)) for i, text in tries]
    taken = [(i, text) for i, text in rendered if text is not None]
    lengths = [len(ids) for ids in scorer.encode([text for _, text in taken])]
    fitting = [found for found, length in zip(taken, lengths, strict=True) if length <= scorer.max_length]
    scores = scorer.scores([text for _, text in fitting])
    wins = [score > scored.chosen[i] for (i, _), score in zip(fitting, scores, strict=True)]
    return float(np.mean(wins)) if wins else None


def accuracy_over_problems(pairs: list[PreferencePair], right: np.ndarray, seed: int) -> Estimate:
    """Share of right pairs with a 95% interval by bootstrap over problems; n counts problems.

    If all pairs are right or all are wrong, the bootstrap interval has no width, and Wilson's interval for n problems
    is used.
    """
    indices = {key: i for i, key in enumerate(dict.fromkeys(pair.problem_key for pair in pairs))}
    problems = np.array([indices[pair.problem_key] for pair in pairs])
    sizes = np.bincount(problems)
    rights = np.bincount(problems, weights=right)
    estimate = float(rights.sum() / sizes.sum())
    if estimate in (0.0, 1.0):
        low, high = wilson_interval(estimate, len(sizes))
    else:
        draws = rng_for(seed, "reward_model_check").integers(len(sizes), size=(BOOTSTRAP_DRAWS, len(sizes)))
        shares = rights[draws].sum(axis=1) / sizes[draws].sum(axis=1)
        low, high = (float(bound) for bound in np.quantile(shares, [0.025, 0.975]))
    return Estimate(estimate=estimate, low=low, high=high, n=len(sizes))


def correlation(scores: np.ndarray, lengths: np.ndarray) -> float | None:
    """Pearson's correlation; None if one of the two does not vary, or with fewer than 3 values."""
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(lengths) == 0:
        return None
    return float(np.corrcoef(scores, lengths)[0, 1])


def markup_share(text: str) -> float:
    """Share of a text's characters that are in MARKUP.

    >>> markup_share("**8**")
    0.8
    """
    return sum(character in MARKUP for character in text) / max(len(text), 1)


def calibration_error(margins: np.ndarray) -> float:
    """Expected calibration error (arXiv 1706.04599, equation 3) over CALIBRATION_BINS confidence bins of equal width.

    A pair's confidence is the Bradley-Terry probability of the response that the model prefers, so it is in [1/2, 1].

    Args:
        margins: (P,) score of the chosen minus score of the rejected response
    """
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    bins = np.minimum(((confidence - 0.5) * 2 * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=(margins > 0) - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(margins))


def refusals(report: RewardModelReport, config: TrainedRewardModel) -> list[str]:
    """Reasons why the model may not be used; empty if it may. The accuracy's lower bound must exceed `min_accuracy`."""
    reasons = []
    accuracy, old = report.accuracy, report.old_accuracy
    if report.num_train_pairs < config.min_pairs:
        reasons.append(f"{report.num_train_pairs} training pairs are under min_pairs={config.min_pairs}")
    if accuracy is None:
        reasons.append("there are no held-out pairs to check it on; raise held_out_share or regeneration.num_problems")
    elif accuracy.low <= config.min_accuracy:
        reasons.append(
            f"held-out accuracy {accuracy.estimate:.3f} has lower bound {accuracy.low:.3f} over {accuracy.n} problems, "
            f"not over min_accuracy={config.min_accuracy}"
        )
    if old is not None and old.high < config.min_old_accuracy:
        reasons.append(
            f"accuracy {old.estimate:.3f} on pairs of earlier rounds has upper bound {old.high:.3f} over {old.n} problems, "
            f"under min_old_accuracy={config.min_old_accuracy}; raise replay_fraction"
        )
    measured = {
        "max_calibration_error": ("calibration error", report.calibration_error),
        "max_length_correlation": ("correlation with length", report.length_correlation),
        "max_markup_correlation": ("correlation with markup", report.markup_correlation),
        "max_canary_wins": ("share of canaries over the chosen response", report.canary_wins),
    }
    for bound, (name, value) in measured.items():
        allowed = getattr(config, bound)
        if allowed is not None and value is not None and abs(value) > allowed:
            reasons.append(f"{name} {value:.3f} is over {bound}={allowed}")
    return reasons
