"""All observers of a training, and the order in which they look at a step. A new observer is one more line here."""

from __future__ import annotations

from collections.abc import Sequence

from configs.schema.config import Config
from configs.schema.rewards import ModelRewardConfig
from grpo_train.observers.contributions import Contributions
from grpo_train.observers.gaps import Gaps
from grpo_train.observers.observer import Observer, StepRecord
from grpo_train.observers.response_cache import ResponseCache
from grpo_train.observers.token_ledger import TokenLedger
from grpo_train.observers.watch import Alarm, Watch
from grpo_train.problems.curriculum import ProblemPicker


class Observers:
    """All observers of a training. The ones that other code reads are attributes too."""

    def __init__(self, config: Config, objectives: Sequence[str], picker: ProblemPicker) -> None:
        self.contributions = Contributions(objectives)
        self.cache = ResponseCache(config.grpo_config.response_cache, config.grpo_config.group_size)
        self.ledger = TokenLedger()
        self.watch = Watch(config.watch)
        models = [reward.name for reward in config.rewards if isinstance(reward, ModelRewardConfig)]
        self.by_name: dict[str, Observer] = {
            "contributions": self.contributions,
            "gaps": Gaps([name for name in models if name in objectives]),
            "cache": self.cache,
            "ledger": self.ledger,
            "picker": picker,
            "watch": self.watch,  # last: it checks the metrics of all others
        }
        """by their names in a checkpoint, in the order in which they look"""

    def look(self, record: StepRecord) -> None:
        """Add every observer's metrics to the record's."""
        for observer in self.by_name.values():
            record.metrics.update(observer.look(record))

    @property
    def ending_alarm(self) -> Alarm | None:
        """The alarm of the last step whose rule ends the training; None where there is none."""
        return next((alarm for alarm in self.watch.alarms if alarm.rule.action != "warn"), None)
