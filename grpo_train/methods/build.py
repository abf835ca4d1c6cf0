"""Builds the method that a configuration names."""

from __future__ import annotations

from configs.schema.config import Config
from configs.schema.methods.method import BestOfNMethod, GrpoMethod, PpoMethod, ReinforceMethod, RlooMethod
from configs.schema.methods.offline import DpoMethod, IpoMethod
from grpo_train.methods.best_of_n import BestOfN
from grpo_train.methods.grpo import Grpo
from grpo_train.methods.method import Method
from grpo_train.methods.ppo import Ppo
from grpo_train.methods.reinforce import Reinforce
from grpo_train.methods.rloo import Rloo
from grpo_train.updating.critic import Critic


def build_method(config: Config, critic: Critic | None = None) -> Method:
    """The method of `config`, at the beginning of a round's training that samples; `critic` is the value model of one that has one.

    An offline method computes no advantages; RLOO stands for it, whose groups are dead where rewards are equal.
    """
    match config.method:
        case GrpoMethod():
            return Grpo(config.combination)
        case RlooMethod() | DpoMethod() | IpoMethod():
            return Rloo(config.combination)
        case ReinforceMethod() as method:
            return Reinforce(method)
        case BestOfNMethod() as method:
            return BestOfN(method)
        case PpoMethod() as method:
            return Ppo(method, critic)
