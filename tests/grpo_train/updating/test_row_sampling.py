"""An update on sampled rows is right in the mean: exactly, over every draw there is."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from grpo_train.updating.advantages import Advantages, Floats
from grpo_train.updating.learner import Learner
from grpo_train.updating.row_sampling import EVEN_PART, _drawn, keeping_probabilities, row_weights, with_even_part
from tests.grpo_train.updating.test_learner import advantages, learner, written_by

SIZES = st.lists(st.floats(1e-6, 100) | st.just(0.0), min_size=1, max_size=40).map(lambda sizes: np.array(sizes))
SHARES = st.floats(0.01, 1)


def every_draw(probabilities: Floats) -> list[tuple[float, np.ndarray]]:
    """(probability, rows that are kept) of each outcome: it changes only where a piece's end is a whole number after the offset."""
    ends = np.cumsum(np.where(probabilities == 1.0, 0.0, probabilities))
    offsets = np.unique(np.concatenate([[0.0, 1.0], ends % 1.0]))
    return [
        (float(high - low), _drawn(probabilities, float(low + high) / 2))
        for low, high in pairwise(offsets)
        if high > low
    ]


@settings(deadline=None)
@given(SIZES, SHARES)
def test_probabilities_grow_with_the_size_and_add_up_to_the_share(sizes: Floats, share: float) -> None:
    probabilities = keeping_probabilities(sizes, share)
    moving = sizes > 0
    assert probabilities.sum() == pytest.approx(share * moving.sum())
    assert ((probabilities > 0) == moving).all()
    assert (probabilities <= 1).all()
    uncertain = moving & (probabilities < 1)
    if uncertain.any():
        factors = probabilities[uncertain] / sizes[uncertain]
        assert factors == pytest.approx(np.full(uncertain.sum(), factors[0]))
        assert (factors[0] * sizes[moving & ~uncertain] >= 1 - 1e-9).all()


def test_probabilities_by_hand() -> None:
    """Half of 6 rows are 3: the largest for certain, and 2 of the 5 others, which add up to 10 times 0.2."""
    probabilities = keeping_probabilities(np.array([0.0, 2.0, 8.0, 1.0, 3.0, 2.0, 2.0]), 0.5)
    assert probabilities == pytest.approx([0, 0.4, 1, 0.2, 0.6, 0.4, 0.4])


@settings(deadline=None)
@given(SIZES, SHARES)
def test_each_row_is_kept_with_its_probability_and_their_number_hardly_differs(sizes: Floats, share: float) -> None:
    probabilities = keeping_probabilities(sizes, share)
    draws = every_draw(probabilities)
    assert sum(chance * kept for chance, kept in draws) == pytest.approx(probabilities, abs=1e-9)
    numbers = {int(kept.sum()) for _, kept in draws}
    assert max(numbers) - min(numbers) <= 1


@settings(deadline=None)
@given(SIZES)
@example(np.array([1e-6, 1e-6]))  # their sum is rounded up
def test_a_share_of_one_keeps_each_row_once(sizes: Floats) -> None:
    rows = Advantages(sizes, sizes, np.zeros(1, np.bool_), sizes[:, None])
    assert (row_weights(rows, 1.0, np.random.default_rng(0)) == (sizes > 0)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("has_kl_term", [False, True])
def test_of_no_rows_none_are_drawn(has_kl_term: bool) -> None:
    rows = Advantages(np.zeros(0), np.zeros(0), np.zeros(0, np.bool_), np.zeros((0, 1)))
    assert row_weights(rows, 0.5, np.random.default_rng(0), has_kl_term=has_kl_term).tolist() == []


def test_tokens_with_advantages_of_their_own_make_a_rows_size() -> None:
    rows = Advantages(
        np.array([1.0, 0.0]),
        np.zeros(2),
        np.zeros(1, np.bool_),
        np.zeros((2, 1)),
        by_token=(np.array([2.0, -1.0]), np.array([])),
    )
    assert rows.sizes == pytest.approx([np.sqrt((3**2 + 0**2) / 2), 0.0])
    assert (rows.sizes > 0).tolist() == rows.moves.tolist()


@settings(deadline=None)
@given(SIZES, SHARES)
@example(np.zeros(3), 0.5)
def test_with_a_kl_term_each_row_may_be_kept_and_no_weight_is_far_over_one_by_the_share(
    sizes: Floats, share: float
) -> None:
    rows = Advantages(sizes, sizes, np.zeros(1, np.bool_), sizes[:, None])
    probabilities = keeping_probabilities(with_even_part(sizes), share)
    assert probabilities.sum() == pytest.approx(share * len(sizes))
    assert (probabilities >= EVEN_PART * share * (1 - 1e-9)).all()
    assert (row_weights(rows, 1.0, np.random.default_rng(0), has_kl_term=True) == 1).all()


@pytest.mark.parametrize("kl_coefficient", [0.0, 0.3])
@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo", "gspo", "cispo"])
def test_the_mean_gradient_over_every_draw_is_that_of_all_rows(
    tiny, monkeypatch, loss: str, kl_coefficient: float
) -> None:
    model, _ = tiny
    model = copy.deepcopy(model).double()
    completions, given_advantages = written_by(model), advantages()
    monkeypatch.setattr(Learner, "_load_frozen", lambda *_: moved(model))
    has_kl_term = kl_coefficient > 0

    def gradient(weights: Floats | None) -> tuple[torch.Tensor, float, float]:
        trained = learner(copy.deepcopy(model), loss=loss, kl_coefficient=kl_coefficient)
        trained.actor, kept = trained.model, {}
        trained.optimizer.register_step_pre_hook(
            lambda *_: kept.update(gradient=torch.cat([weight.grad.flatten() for weight in trained.model.parameters()]))
        )
        metrics = trained.update(completions, given_advantages, row_weights=weights)
        return kept["gradient"], metrics["policy/loss"], metrics.get("policy/kl_reference", 0.0)

    whole, whole_loss, whole_kl = gradient(None)
    every_row = row_weights(given_advantages, 1.0, np.random.default_rng(0), has_kl_term=has_kl_term)
    assert (gradient(every_row)[0] == whole).all()
    assert (whole_kl > 0) == has_kl_term
    sizes = with_even_part(given_advantages.sizes) if has_kl_term else given_advantages.sizes
    assert given_advantages.dead.any()  # its rows have a KL term alone
    probabilities = keeping_probabilities(sizes, 0.5)
    draws = every_draw(probabilities)
    assert len(draws) > 2
    sampled = [(chance, *gradient(kept / np.where(kept, probabilities, 1.0))) for chance, kept in draws]
    mean = sum(chance * one for chance, one, *_ in sampled)
    assert torch.allclose(mean, whole, rtol=1e-4, atol=1e-6 * float(whole.abs().max()))
    assert sum(chance * value for chance, _, value, _ in sampled) == pytest.approx(whole_loss, abs=1e-6)
    assert sum(chance * kl for chance, *_, kl in sampled) == pytest.approx(whole_kl, abs=1e-6)
    assert max(float((one - whole).norm() / whole.norm()) for _, one, *_ in sampled) > 0.05  # single draws do differ


def moved(model: PreTrainedModel) -> PreTrainedModel:
    """A reference some way from the model."""
    reference = copy.deepcopy(model).requires_grad_(False)
    generator = torch.Generator().manual_seed(2)
    for weight in reference.parameters():
        weight += 0.05 * weight.std() * torch.randn(weight.shape, generator=generator)
    return reference


def test_rows_that_are_left_out_are_not_computed_and_stay_in_the_denominators(tiny) -> None:
    """Two updates on a batch keep the same rows; twice each kept row is twice its part of the loss."""
    model, _ = tiny
    completions, given_advantages = written_by(model), advantages()
    kept = np.array([1.0, 1.0, 0, 0, 0, 0, 0, 0])
    trained = learner(copy.deepcopy(model), updates_per_batch=2, learning_rate=1e-3)
    whole = learner(copy.deepcopy(model))
    whole.update(completions, given_advantages)
    trained.update(completions, given_advantages, row_weights=kept)
    assert trained.positions.computed < whole.positions.computed / 2
    once = learner(copy.deepcopy(model)).update(completions, given_advantages, row_weights=kept)
    twice = learner(copy.deepcopy(model)).update(completions, given_advantages, row_weights=2 * kept)
    assert twice["policy/grad_norm"] == pytest.approx(2 * once["policy/grad_norm"], rel=1e-5)
