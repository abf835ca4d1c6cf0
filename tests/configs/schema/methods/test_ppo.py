"""What goes with `method: {kind: ppo}`, and what is refused with field, value and remedy."""

import pytest

from configs.errors import ConfigError
from configs.reader import load_config
from configs.schema.config import Config
from configs.schema.methods.method import PpoMethod
from tests.paths import TINY


def ppo(*overrides: str, settings: str = "") -> Config:
    return load_config(TINY, [f"method={{kind: ppo{settings}}}", *overrides])


def test_ppo_has_the_papers_discounts_and_a_loss_that_is_a_mean_over_tokens() -> None:
    config = ppo()
    assert isinstance(config.method, PpoMethod)
    assert (config.method.gamma, config.method.gae_lambda) == (1.0, 1.0)
    assert (config.grpo_config.loss, config.combination.scale) == ("dapo", "none")


def test_another_loss_stays_as_it_is_given() -> None:
    assert ppo("grpo_config.loss=grpo").grpo_config.loss == "grpo"


def test_a_trained_reward_model_can_be_the_beginning_of_a_value_model() -> None:
    method = ppo(settings=", value_model: taste").method
    assert isinstance(method, PpoMethod)
    assert method.value_model == "taste"


FROZEN = "reward_models.taste={kind: frozen, path: somewhere}"
SERVED = "reward_models.taste={kind: served, path: somewhere, url: 'http://127.0.0.1:8000', model: taste}"


@pytest.mark.parametrize(
    ("overrides", "settings", "told"),
    [
        ([], ", value_model: tast", r"value_model='tast' is no reward model; .*trained reward models are \['taste'\]"),
        ([FROZEN], ", value_model: taste", "value_model='taste' is a frozen reward model; use a trained one, or policy"),
        ([SERVED], ", value_model: taste", "value_model='taste' is a served reward model; use a trained one, or policy"),
        (["grpo_config.loss=gspo"], "", "loss=gspo .*advantage for each token; use dapo"),
        (["grpo_config.refill=2"], "", "refill=2 .*method.kind=ppo.*use 0"),
        (["grpo_config.response_cache.share=0.5"], "", "response_cache.share=0.5 does not go with method.kind=ppo.*use 0"),
        (["grpo_config.vllm={max_staleness: 1}"], "", "max_staleness=1 does not go with method.kind=ppo.*use 0"),
        (["launcher={kind: torchrun, num_processes: 2}"], "", "num_processes=2 does not go with method.kind=ppo.*use 1"),
        (["combination.scale=group"], "", "combination.scale=group does not go with method.kind=ppo; use none"),
        (["combination.baseline=leave_one_out"], "", "baseline=leave_one_out does not go with method.kind=ppo; use mean"),
        (
            ["rewards.0={name: steps, kind: process, reduce: per_step}", "evaluation.checker=digits"],
            "",
            "reward 'steps' is kept per step",
        ),
        ([], ", gamma: 1.5", "gamma"),
        ([], ", value_warmup_updates: -1", "value_warmup_updates"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_ppo_is_refused_with_the_remedy(overrides: list[str], settings: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ppo(*overrides, settings=settings)
