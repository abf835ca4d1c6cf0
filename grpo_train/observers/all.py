"""All observers of a training, and the order in which they look at a step. A new observer is one more line here."""

from __future__ import annotations

from collections.abc import Sequence

from configs.schema.config import Config
from configs.schema.rewards import ModelRewardConfig
from grpo_train.observers.contributions import Contributions
from grpo_train.observers.gaps import Gaps
from grpo_train.observers.observer import Observer, StepRecord
from grpo_train.observers.response_cache import ResponseCache
from grpo_train.observers.spending import Spending
from grpo_train.observers.token_ledger import TokenLedger
from grpo_train.observers.watch import Alarm, Watch
from grpo_train.problems.picking.curriculum import ProblemPicker


class Observers:
    """All observers of a training. The ones that other code reads are attributes too."""

    def __init__(self, config: Config, objectives: Sequence[str], picker: ProblemPicker, method: object = None) -> None:
        """`method` is one of them if it remembers something."""
        self.contributions = Contributions(objectives)
        self.cache = ResponseCache(config.grpo_config.response_cache, config.grpo_config.group_size)
        self.ledger = TokenLedger()
        self.watch = Watch(config.watch)
        self.spending = None if config.budget is None else Spending(config.budget)
        models = [reward.name for reward in config.rewards if isinstance(reward, ModelRewardConfig)]
        self.by_name: dict[str, Observer] = {
            "contributions": self.contributions,
            "gaps": Gaps([name for name in models if name in objectives]),
            "cache": self.cache,
            "ledger": self.ledger,
            "picker": picker,
            **({"method": method} if isinstance(method, Observer) else {}),
            **({} if self.spending is None else {"spending": self.spending}),
            "watch": self.watch,  # last: it checks the metrics of all others
        }
        """by their names in a checkpoint, in the order in which they look"""

    def look(self, record: StepRecord) -> None:
        """Add every observer's metrics to the record's."""
        for observer in self.by_name.values():
            record.metrics.update(observer.look(record))

    def budget_ends_with(self, record: StepRecord) -> bool:
        """Whether the step's tokens will have spent the budget; not known of one in seconds before the step is over."""
        return self.spending is not None and self.spending.ends_with(record.num_sampled_tokens)

    @property
    def is_budget_spent(self) -> bool:
        return self.spending is not None and self.spending.is_used_up

    @property
    def ending_alarm(self) -> Alarm | None:
        """The alarm of the last step whose rule ends the training; None where there is none."""
        return next((alarm for alarm in self.watch.alarms if alarm.rule.action != "warn"), None)
