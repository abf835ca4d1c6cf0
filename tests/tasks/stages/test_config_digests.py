"""A run begun before `save_steps` was marked OPERATIONAL goes on: the digests in its manifests still count."""

from __future__ import annotations

import pytest

from configs.records import Policy
from tasks.running.stage_spec import StageSpec
from tasks.runs.history import ModelRef
from tasks.stages.evaluate import EvaluateSpec
from tasks.stages.policy import PolicySpec
from tasks.stages.prepare import ProblemsSpec
from tasks.stages.promote import PromoteSpec
from tasks.stages.regenerate import RegenerateSpec
from tasks.stages.reward_model import RewardModelSpec
from tests.tasks.stage_kit import tiny

POLICY = Policy(path="p", id="x", round=0)
CONFIG = tiny()
SPECS: list[tuple[StageSpec, str]] = [
    (
        ProblemsSpec(config=CONFIG, round=0, policy=POLICY, rounds=2),
        "ecf5f16062dd6b13e4bd390b7a956e6c6a0f2ae5321a02ce998171c6e2799813",
    ),
    (
        EvaluateSpec(config=CONFIG, round=0, policy=POLICY, initial_policy=None, problems={}, reward_models={}),
        "b12b1ff27ea0420d181f7db981482c14e44020c17680c7ab43e768f6695deb40",
    ),
    (
        RegenerateSpec(config=CONFIG, round=0, policies=[POLICY], problems="p", reward_models={}),
        "8fd96b7a10697cd3093e8d915dba5ff03ee070918ba37c5af75418f413fa13db",
    ),
    (
        RewardModelSpec(
            config=CONFIG, round=1, name="taste", base=ModelRef(id="x", path="p"), new_pairs=[], earlier_pairs=[]
        ),
        "53a464be6571706777092c01dde99065ac7d8c1f9910bb8efc53b73b3a331585",
    ),
    (
        PolicySpec(config=CONFIG, round=1, policy=POLICY, initial_policy=POLICY, problems="p", reward_models={}),
        "29efb8a227308804f3cf408e85ffa0b618d6199ea79aaeb6ce95edf24bdb324e",
    ),
    (
        PromoteSpec(
            config=CONFIG, round=1, champion=POLICY, challenger=POLICY, champion_results="a", challenger_results="b"
        ),
        "0b0fe0b5d2cbc9efd99d5074efb47e770af77e07e967a94f3548bd39bd5bfe4a",
    ),
]
"""each stage of configs/tiny.yaml, and the digest of its manifest before `save_steps` was marked OPERATIONAL"""


@pytest.mark.parametrize(("spec", "digest"), SPECS, ids=[type(spec).__name__ for spec, _ in SPECS])
def test_the_digest_of_0_1_0_is_still_known(spec: StageSpec, digest: str) -> None:
    assert digest in (spec.config_digest(), spec.older_config_digest())


@pytest.mark.parametrize("spec", [spec for spec, _ in SPECS], ids=[type(spec).__name__ for spec, _ in SPECS])
def test_no_stage_runs_again_because_checkpoints_are_made_more_seldom(spec: StageSpec) -> None:
    """Before the mark evaluation and regeneration did: they read all of `grpo_config`, `save_steps` too."""
    seldom = tiny("grpo_config.save_steps=7", "reward_models.taste.save_steps=9", "keep_checkpoints=5")
    assert spec.model_copy(update={"config": seldom}).config_digest() == spec.config_digest()


RENDERING = [spec for spec, _ in SPECS if not isinstance(spec, PromoteSpec)]


@pytest.mark.parametrize("spec", RENDERING, ids=[type(spec).__name__ for spec in RENDERING])
@pytest.mark.parametrize(
    "override", ["problems.template_variables={enable_thinking: false}", "problems.join_system=true"]
)
def test_a_stage_that_renders_prompts_depends_on_what_its_template_is_given(spec: StageSpec, override: str) -> None:
    assert spec.model_copy(update={"config": tiny(override)}).config_digest() != spec.config_digest()
    dated = spec.model_copy(update={"config": tiny("run.date=2024-02-29")})
    assert dated.config_digest() == spec.config_digest()  # it cannot change within a run
