"""Is a reward model good enough to train with? Its accuracy on pairs of problems that it never saw decides."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from configs.files import weights_id
from configs.records import Estimate, PreferencePair, RewardModelReport
from configs.reward_schema import TrainedRewardModel
from configs.seeds import rng_for
from reward_training.model_scores import RewardModelScorer
from reward_training.rendering import conversation_text

BOOTSTRAP_DRAWS = 2000
Z_95 = 1.959964


def check_reward_model(
    folder: Path,
    held_out: list[PreferencePair],
    *,
    config: TrainedRewardModel,
    num_train_pairs: int,
    num_replayed_pairs: int,
    seed: int,
) -> RewardModelReport:
    """Score held-out pairs and say whether the model may be used, with a reason for each bound that it misses.

    Pairs with a conversation over `max_length` tokens are left out and counted among neither.
    """
    with RewardModelScorer(folder, max_length=config.max_length) as scorer:
        pairs, chosen, rejected, lengths = _score_pairs(scorer, held_out)
    accuracy = accuracy_over_problems(pairs, chosen > rejected, seed) if pairs else None
    reasons = refusals(accuracy, config, num_train_pairs)
    return RewardModelReport(
        id=weights_id(folder),
        path=str(folder),
        accepted=not reasons,
        reasons=reasons,
        accuracy=accuracy,
        margin=float((chosen - rejected).mean()) if pairs else None,
        length_correlation=correlation(np.concatenate([chosen, rejected]), lengths),
        num_train_pairs=num_train_pairs,
        num_held_out_pairs=len(pairs),
        num_replayed_pairs=num_replayed_pairs,
    )


def _score_pairs(
    scorer: RewardModelScorer, held_out: list[PreferencePair]
) -> tuple[list[PreferencePair], np.ndarray, np.ndarray, np.ndarray]:
    """The pairs that fit, their chosen and rejected scores (P,), and the responses' tokens (2P,), chosen first."""
    pairs = [pair for pair in held_out if _fits(scorer, pair)]
    texts = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    conversations = [
        conversation_text(scorer.tokenizer, pair.prompt, text)
        for pair, text in zip([*pairs, *pairs], texts, strict=True)
    ]
    scores = np.array(scorer.scores(conversations))
    lengths = np.array([len(scorer.tokenizer.encode(text, add_special_tokens=False)) for text in texts])
    return pairs, scores[: len(pairs)], scores[len(pairs) :], lengths


def _fits(scorer: RewardModelScorer, pair: PreferencePair) -> bool:
    texts = [conversation_text(scorer.tokenizer, pair.prompt, text) for text in (pair.chosen, pair.rejected)]
    return all(len(ids) <= scorer.max_length for ids in scorer.encode(texts))


def accuracy_over_problems(pairs: list[PreferencePair], right: np.ndarray, seed: int) -> Estimate:
    """Share of right pairs with a 95% interval by bootstrap over problems; n counts problems.

    Where all problems agree the bootstrap has no width, and Wilson's interval for n problems stands instead.
    """
    keys = {key: number for number, key in enumerate(dict.fromkeys(pair.problem_key for pair in pairs))}
    problems = np.array([keys[pair.problem_key] for pair in pairs])
    sizes = np.bincount(problems)
    rights = np.bincount(problems, weights=right)
    estimate = float(rights.sum() / sizes.sum())
    if estimate in (0.0, 1.0):
        low, high = _wilson(estimate, len(sizes))
    else:
        draws = rng_for(seed, "reward_model_check").integers(len(sizes), size=(BOOTSTRAP_DRAWS, len(sizes)))
        shares = rights[draws].sum(axis=1) / sizes[draws].sum(axis=1)
        low, high = (float(bound) for bound in np.quantile(shares, [0.025, 0.975]))
    return Estimate(estimate=estimate, low=low, high=high, n=len(sizes))


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval for a share of n."""
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def correlation(scores: np.ndarray, lengths: np.ndarray) -> float | None:
    """Pearson's correlation; None where one of the two does not vary."""
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(lengths) == 0:
        return None
    return float(np.corrcoef(scores, lengths)[0, 1])


def refusals(accuracy: Estimate | None, config: TrainedRewardModel, num_train_pairs: int) -> list[str]:
    """Why the model may not be used; empty where it may. Both bounds must be met, accuracy's strictly."""
    reasons = []
    if num_train_pairs < config.min_pairs:
        reasons.append(f"{num_train_pairs} training pairs are under min_pairs={config.min_pairs}")
    if accuracy is None:
        reasons.append("there are no held-out pairs to check it on; raise held_out_share or regeneration.num_problems")
    elif accuracy.low <= config.min_accuracy:
        reasons.append(
            f"held-out accuracy {accuracy.estimate:.3f} has lower bound {accuracy.low:.3f} over {accuracy.n} problems, "
            f"not over min_accuracy={config.min_accuracy}"
        )
    return reasons
