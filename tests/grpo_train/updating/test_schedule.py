"""The learning rate of each update: what the journal shows is what moved the weights."""

import copy
from typing import get_args

import pytest
import torch
from transformers import get_scheduler

from configs.schema.grpo import GrpoConfig, Schedule
from grpo_train.updating.learner import Learner
from grpo_train.updating.schedule import learning_rates, share_of_peak
from tests.grpo_train.updating.test_learner import POLICY, advantages, written_by

SCHEDULES = get_args(Schedule)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_updates", [1, 2, 7, 30])
def test_without_a_warm_up_it_is_the_schedule_of_transformers_to_the_bit(schedule, num_updates):
    name = "constant_with_warmup" if schedule == "constant" else schedule
    parameters = [torch.nn.Parameter(torch.ones(1))]
    theirs, ours = (torch.optim.AdamW(parameters, lr=3e-4) for _ in range(2))
    schedulers = [
        get_scheduler(name, theirs, num_warmup_steps=0, num_training_steps=num_updates),
        learning_rates(ours, schedule, num_warmup=0, num_updates=num_updates),
    ]
    for _ in range(num_updates):
        assert schedulers[0].get_last_lr() == schedulers[1].get_last_lr()
        for optimizer, scheduler in zip((theirs, ours), schedulers, strict=True):
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("num_warmup", "num_updates"), [(1, 1), (1, 5), (3, 3), (3, 8), (9, 4)])
def test_a_warm_up_begins_over_zero_and_ends_at_the_peak(schedule, num_warmup, num_updates):
    shares = [
        share_of_peak(i, schedule=schedule, num_warmup=num_warmup, num_updates=num_updates) for i in range(num_updates)
    ]
    assert shares[:num_warmup] == [(i + 1) / num_warmup for i in range(min(num_warmup, num_updates))]
    assert all(0 < share <= 1 for share in shares)
    assert shares[num_warmup:] == sorted(shares[num_warmup:], reverse=True)


@pytest.mark.parametrize(
    ("schedule", "num_warmup", "num_updates", "rates"),
    [
        ("constant", 1, 1, [1e-2]),
        ("constant", 2, 3, [5e-3, 1e-2, 1e-2]),
        ("linear", 0, 2, [1e-2, 5e-3]),
        ("cosine", 1, 2, [1e-2, 1e-2]),
    ],
)
def test_each_update_moves_the_weights_by_the_rate_that_is_shown(tiny, schedule, num_warmup, num_updates, rates):
    """With a warm-up of 1 of 1 update the weights stayed as they were, while the journal showed the full rate."""
    model = copy.deepcopy(tiny[0])
    grpo = GrpoConfig(
        group_size=2, batch_size=8, precision="float32", temperature=1.0, learning_rate=1e-2, adam_betas=(0.0, 0.0),
        schedule=schedule, warmup_updates=num_warmup, max_response_length=16,
    )  # fmt: skip
    trained = Learner(model, grpo, policy=POLICY, initial_policy=POLICY, num_updates=num_updates)
    for rate in rates:
        before = [weight.detach().clone() for weight in model.parameters()]
        metrics = trained.update(written_by(model), advantages())
        assert metrics["policy/learning_rate"] == pytest.approx(rate)
        moved = max(
            float((new.detach() - old).abs().max()) for new, old in zip(model.parameters(), before, strict=True)
        )
        # with both betas 0 AdamW moves a weight by rate x gradient / |gradient|
        assert moved == pytest.approx(rate, rel=1e-3)
