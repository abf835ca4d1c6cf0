"""The learning rate of each update as a share of the peak: a linear warm-up, then constant, linear or cosine.

A warm-up of W updates has the shares 1/W, 2/W, ..., 1, so that its first update moves the weights; transformers' schedules
start at 0 (`0/W`), where an update changes nothing. Linear and cosine fall from 1 at the first update after the warm-up, or
of a training without one, towards 0, which they would reach at the update after the last: arithmetic and result are
transformers'.
"""

from __future__ import annotations

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from configs.schema.grpo import Schedule


def learning_rates(optimizer: Optimizer, schedule: Schedule, *, num_warmup: int, num_updates: int) -> LambdaLR:
    """A scheduler that sets the optimizer's learning rate for the first update, and at each `step()` for the next."""
    return LambdaLR(
        optimizer, partial(share_of_peak, schedule=schedule, num_warmup=num_warmup, num_updates=num_updates)
    )


def share_of_peak(update: int, *, schedule: Schedule, num_warmup: int, num_updates: int) -> float:
    """The share at `update`, which counts from 0.

    >>> [share_of_peak(i, schedule="linear", num_warmup=2, num_updates=6) for i in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if update < num_warmup:
        return (update + 1) / num_warmup
    num_falling = max(1, num_updates - num_warmup)
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return max(0.0, (num_updates - update) / num_falling)
        case "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((update - num_warmup) / num_falling))))
