"""What goes with methods that learn from given samples, and what is refused."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError
from configs.reader import load_config
from configs.schema.config import Config
from configs.schema.methods.offline import DpoMethod
from configs.schema.operational import without_operational
from tests.paths import ROOT, TINY


def configured(*changes: str, kind: str = "dpo") -> Config:
    return load_config(TINY, [f"method.kind={kind}", *changes])


@pytest.mark.parametrize("kind", ["dpo", "ipo"])
def test_the_tiny_configuration_becomes_that_of_an_offline_method_by_its_kind_alone(kind: str) -> None:
    method = configured(kind=kind).method
    assert (method.kind, method.beta, method.learning_rate) == (kind, 0.1, 1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["dpo", "ipo"])
def test_the_quickstart_becomes_that_of_an_offline_method_without_its_kl_term_its_rows_and_its_scale(kind: str) -> None:
    quickstart = ROOT / "configs" / "quickstart.yaml"
    with pytest.raises(ConfigError, match=r"grpo_config.kl_coefficient=0.05"):
        load_config(quickstart, [f"method.kind={kind}"])
    off = [f"method.kind={kind}", "grpo_config.kl_coefficient=0"]
    with pytest.raises(ConfigError, match=rf"grpo_config.row_sampling.share=0.5 .*method.kind={kind}.*use 1.0"):
        load_config(quickstart, off)
    off.append("grpo_config.row_sampling.share=1")
    with pytest.raises(
        ConfigError, match=rf"combination.scale=batch is of advantages, and method.kind={kind} .*leave it out"
    ):
        load_config(quickstart, off)
    assert load_config(quickstart, [*off, "combination.scale=group"]).method.kind == kind


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("grpo_config.kl_coefficient=0.1", r"grpo_config.kl_coefficient=0.1 .*method.kind=dpo.*use 0.0"),
        ("grpo_config.updates_per_batch=2", r"updates_per_batch=2 .*use 1"),
        ("grpo_config.truncated=leave_out", r"truncated=leave_out .*use keep"),
        ("grpo_config.refill=1", r"refill=1 .*use 0"),
        ("grpo_config.response_cache.share=0.5", r"response_cache.share=0.5 .*use 0.0"),
        ("grpo_config.early_stop.loop={min_tokens: 4}", r"early_stop=on .*use off"),
        ("grpo_config.vllm={max_staleness: 1}", r"vllm.max_staleness=1 .*use 0"),
        ("curriculum.kind=band", r"curriculum.kind=band .*use none"),
        ("launcher={kind: torchrun, num_processes: 2}", r"launcher.num_processes=2 .*one process"),
        ("launcher={kind: torchrun, num_processes: 2, shard: true}", r"launcher"),
        (
            "watch=[{metric: dpo/margin, above: 9, patience: 1, action: roll_back}]",
            r"dpo/margin has action roll_back.*use stop",
        ),
        ("method.pairs_per_problem=3", r"pairs_per_problem=3 needs regeneration.group_size >= 6, not 4.*use at most 2"),
        ("method.min_pairs=41", r"min_pairs=41 can never be reached: .*num_problems=40 make 40 pairs at most"),
        ("regeneration.group_size=1", r"regeneration.group_size"),
        ("combination.order=normalize_then_sum", r"combination.order=normalize_then_sum .*method.kind=dpo"),
        ("method.beta=0", r"method.dpo.beta|method.beta"),
    ],
)
def test_what_an_offline_method_cannot_do_is_refused_by_name(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(change)


def test_servers_may_write_the_samples() -> None:
    assert configured("grpo_config.vllm={}").grpo_config.vllm is not None


def test_a_run_without_the_block_is_asked_what_it_was_asked_before() -> None:
    assert "method" not in without_operational(load_config(TINY, []))
    assert without_operational(configured())["method"] == DpoMethod().model_dump()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("grpo_config.kl_coefficient=0.1", r"grpo_config.kl_coefficient=0.1 .*method.mode=offline.*use 0.0"),
        ("curriculum.kind=threshold", r"curriculum.kind=threshold .*method.mode=offline"),
        ("launcher={kind: torchrun, num_processes: 2}", r"launcher.num_processes=2 .*method.mode=offline"),
    ],
)
def test_best_of_n_offline_refuses_the_same(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured("method.mode=offline", change, kind="best_of_n")
    if "launcher" in change:
        assert configured(change, kind="best_of_n").launcher.num_processes == 2


def test_passes_over_kept_responses_are_of_the_offline_mode() -> None:
    with pytest.raises(ConfigError, match=r"method.epochs=2 is of method.mode=offline.*grpo_config.epochs"):
        configured("method.epochs=2", kind="best_of_n")


def test_best_of_n_online_is_asked_what_it_was_asked_before_it_had_a_mode() -> None:
    assert without_operational(configured(kind="best_of_n"))["method"] == {"kind": "best_of_n", "min_score": None}
