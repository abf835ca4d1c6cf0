"""Each field of `method`, `combination` and `grpo_config` under each method: read, or refused where it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import pytest

from configs.errors import ConfigError
from configs.reader import load_config
from configs.schema.grpo import GrpoConfig, VllmConfig
from configs.schema.methods.method import Method
from configs.schema.methods.unread import OF_THE_LOOP
from configs.schema.rewards import CombinationConfig
from tests.paths import ROOT, TINY

METHODS = {
    "grpo": "{kind: grpo}",
    "rloo": "{kind: rloo}",
    "reinforce": "{kind: reinforce}",
    "ppo": "{kind: ppo}",
    "best": "{kind: best_of_n}",
    "offline": "{kind: best_of_n, mode: offline}",
    "dpo": "{kind: dpo}",
    "ipo": "{kind: ipo}",
}
PAIRS = "dpo ipo"
GIVEN = f"offline {PAIRS}"
NOT_GRPO = f"rloo reinforce ppo best {GIVEN}"
Fate = Literal["read", "refused", "of the loop"]


@dataclass(frozen=True)
class Field:
    """What becomes of a field that is written."""

    value: str
    """not the default"""
    reader: str
    """a file that reads it"""
    refused: str = ""
    """methods that refuse the value"""
    unread: str = ""
    """methods that do not read it and let it stand, which docs/methods.md and the doctor say"""

    def fate(self, method: str) -> Fate:
        if method in self.refused.split():
            return "refused"
        return "of the loop" if method in self.unread.split() else "read"


GRPO, RLOO = "grpo_train/methods/grpo.py", "grpo_train/methods/rloo.py"
LOSS, LEARNER = "grpo_train/updating/loss.py", "grpo_train/updating/learner.py"
GIVEN_SAMPLES, ROLLOUTS = "grpo_train/methods/given_samples.py", "grpo_train/rollouts.py"
ASKED = "grpo_train/sampling/asked.py"
FIELDS = {
    "combination.order": Field("normalize_then_sum", GRPO, NOT_GRPO),
    "combination.scale": Field("batch", GRPO, NOT_GRPO),
    "combination.baseline": Field("leave_one_out", GRPO, f"reinforce ppo best {GIVEN}"),
    "combination.reward_spread_floor": Field("0.01", RLOO, f"reinforce ppo best {GIVEN}"),
    "combination.max_unscored_share": Field("0.5", "tasks/stages/regenerate.py"),
    "grpo_config.group_size": Field("2", "grpo_train/step.py", unread=PAIRS),
    "grpo_config.loss": Field("bnpo", LOSS, f"rloo reinforce best {GIVEN}"),
    "grpo_config.clip_range": Field("0.1", LOSS, f"best {GIVEN}"),
    "grpo_config.clip_range_high": Field("0.28", LOSS, f"best {GIVEN}"),
    "grpo_config.dual_clip": Field("3", LOSS, f"best {GIVEN}"),
    "grpo_config.learning_rate": Field("0.1", LEARNER, unread=PAIRS),
    "grpo_config.batch_size": Field("32", "grpo_train/step.py", unread=PAIRS),
    "grpo_config.kl_coefficient": Field("0.1", LEARNER, GIVEN),
    "grpo_config.kl_reference": Field("initial", LEARNER, unread=GIVEN),  # nor by others, while kl_coefficient is 0
    "grpo_config.kl_estimator": Field("k1", LOSS, unread=GIVEN),
    "grpo_config.truncated": Field("leave_out", "grpo_train/groups.py", GIVEN),
    "grpo_config.max_response_length": Field("8", ASKED),
    "grpo_config.temperature": Field("0.7", ASKED, unread=PAIRS),
    "grpo_config.top_p": Field("0.9", ASKED, unread=PAIRS),
    "grpo_config.top_k": Field("5", ASKED, unread=PAIRS),
    "grpo_config.epochs": Field("2", "grpo_train/trainer.py", unread=PAIRS),
    "grpo_config.max_updates": Field("3", "grpo_train/trainer.py", unread=PAIRS),
    "grpo_config.updates_per_batch": Field("2", LEARNER, f"best {GIVEN}"),
    "grpo_config.max_grad_norm": Field("2", GIVEN_SAMPLES),
    "grpo_config.warmup_updates": Field("2", GIVEN_SAMPLES),
    "grpo_config.schedule": Field("cosine", GIVEN_SAMPLES),
    "grpo_config.adam_betas": Field("[0.8, 0.9]", GIVEN_SAMPLES),
    "grpo_config.weight_decay": Field("0.1", GIVEN_SAMPLES),
    "grpo_config.lora": Field("{rank: 2}", "tasks/stages/offline_policy.py"),
    "grpo_config.activation_checkpointing": Field("true", GIVEN_SAMPLES),
    "grpo_config.precision": Field("float32", GIVEN_SAMPLES),
    "grpo_config.deterministic": Field("true", GIVEN_SAMPLES),
    "grpo_config.micro_batch_tokens": Field("64", "grpo_train/methods/dpo.py"),
    "grpo_config.refill": Field("1", ROLLOUTS, f"reinforce ppo {GIVEN}"),
    "grpo_config.generation_rows": Field("8", ASKED),
    "grpo_config.vllm": Field("{}", "tasks/stages/offline_policy.py"),
    "grpo_config.early_stop": Field("{loop: {min_tokens: 4}}", ROLLOUTS, GIVEN),
    "grpo_config.response_cache": Field("{share: 0.5}", "grpo_train/observers/all.py", f"ppo best {GIVEN}"),
    "grpo_config.row_sampling": Field("{share: 0.5}", "grpo_train/step.py", GIVEN),
    "grpo_config.monitor_kl_every": Field("3", "grpo_train/step.py", unread=GIVEN),
    "grpo_config.save_steps": Field("5", "tasks/stages/policy.py"),
    "grpo_config.vllm.urls": Field("['http://127.0.0.1:9']", "grpo_train/sampling/vllm/servers.py"),
    "grpo_config.vllm.weights": Field("broadcast", "grpo_train/sampling/vllm/weights.py"),
    "grpo_config.vllm.folder": Field("there", "grpo_train/sampling/vllm/weights.py"),
    "grpo_config.vllm.patience_s": Field("1", "grpo_train/sampling/vllm/post.py"),
    "grpo_config.vllm.request_timeout_s": Field("1", "grpo_train/sampling/vllm/post.py"),
    "grpo_config.vllm.max_mismatch": Field("0.1", "grpo_train/sampling/vllm/known.py"),
    "grpo_config.vllm.importance": Field("sequence", LOSS, GIVEN),
    "grpo_config.vllm.min_importance_weight": Field("0.1", LOSS, GIVEN),
    "grpo_config.vllm.max_importance_weight": Field("3", LOSS, GIVEN),
    "grpo_config.vllm.beyond": Field("mask", LOSS, GIVEN),
    "grpo_config.vllm.max_staleness": Field("1", "grpo_train/following.py", f"ppo {GIVEN}"),
}
CRITIC, PPO, DPO = "grpo_train/updating/critic.py", "grpo_train/methods/ppo.py", "grpo_train/methods/dpo.py"
LESSONS = "tasks/stages/lessons.py"
OF_METHODS: dict[str, dict[str, Field]] = {
    "grpo": {},
    "rloo": {},
    "reinforce": {
        "baseline": Field("none", "grpo_train/methods/reinforce.py"),
        "decay": Field("0.5", "grpo_train/methods/reinforce.py", "reinforce"),  # as another baseline is the default
    },
    "ppo": {
        "value_model": Field("taste", "tasks/stages/value_model.py"),
        "gamma": Field("0.9", PPO),
        "gae_lambda": Field("0.9", PPO),
        "whiten": Field("false", PPO),
        "value_clip": Field("0.5", CRITIC),
        "value_learning_rate": Field("0.1", CRITIC),
        "value_updates": Field("2", CRITIC),
        "value_warmup_updates": Field("3", CRITIC),
    },
    "best": {
        "mode": Field("offline", "configs/schema/methods/method.py"),
        "epochs": Field("2", LESSONS, "best"),
        "min_score": Field("0.5", "grpo_train/methods/best_of_n.py"),
    },
    "offline": {
        "mode": Field("online", "configs/schema/methods/method.py"),
        "epochs": Field("2", LESSONS),
        "min_score": Field("0.5", "grpo_train/methods/best_of_n.py"),
    },
    "dpo": {
        "beta": Field("0.2", DPO),
        "learning_rate": Field("0.1", DPO),
        "epochs": Field("2", DPO),
        "batch_size": Field("8", DPO),
        "pairs_per_problem": Field("2", LESSONS),
        "min_margin": Field("0.1", LESSONS),
        "min_pairs": Field("8", LESSONS),
    },
}
OF_METHODS["ipo"] = OF_METHODS["dpo"]


def fields_of(method: str) -> Iterator[tuple[str, Field]]:
    yield from FIELDS.items()
    for name, field in OF_METHODS[method].items():
        yield f"method.{name}", field


def test_each_field_has_an_entry() -> None:
    """A new field is put down here, with what reads it and under which methods it is refused."""
    blocks = {"combination": CombinationConfig, "grpo_config": GrpoConfig, "grpo_config.vllm": VllmConfig}
    assert {f"{name}.{field}" for name, block in blocks.items() for field in block.model_fields} == FIELDS.keys()
    kinds = {
        kind.model_fields["kind"].default: set(kind.model_fields) - {"kind"} for kind in get_args(get_args(Method)[0])
    }
    names = {"best": "best_of_n", "offline": "best_of_n"}
    assert kinds == {names.get(name, name): set(fields) for name, fields in OF_METHODS.items()}


@pytest.mark.parametrize("method", METHODS)
def test_a_field_is_read_or_refused_by_name_where_it_is_written(method: str) -> None:
    for path, field in fields_of(method):
        overrides = [f"method={METHODS[method]}", f"{path}={field.value}"]
        if path.startswith("grpo_config.vllm."):
            overrides.insert(1, "grpo_config.vllm={}")
        if field.fate(method) == "refused":
            with pytest.raises(ConfigError, match=rf"{re.escape(path)}\b.*; "):
                load_config(TINY, overrides)
        else:
            load_config(TINY, overrides)


@pytest.mark.parametrize("path", [*FIELDS, *(f"method.{name}" for of in OF_METHODS.values() for name in of)])
def test_what_is_said_to_read_a_field_names_it(path: str) -> None:
    every = FIELDS | {f"method.{name}": field for of in OF_METHODS.values() for name, field in of.items()}
    name = path.rsplit(".", maxsplit=1)[-1]
    assert re.search(rf"\.{name}\b", (ROOT / every[path].reader).read_text(encoding="utf-8")), every[path].reader


def test_what_pairs_let_stand_is_what_the_doctor_names() -> None:
    stands = {path.removeprefix("grpo_config.") for path, field in FIELDS.items() if field.fate("dpo") == "of the loop"}
    assert stands - {"kl_reference", "kl_estimator"} == set(OF_THE_LOOP)
    assert {path: field.fate("ipo") for path, field in FIELDS.items()} == {
        path: field.fate("dpo") for path, field in FIELDS.items()
    }


def test_the_decay_of_a_moving_average_is_read_and_at_its_default_it_may_stand_anywhere() -> None:
    for settings in ("baseline: moving_average, decay: 0.5", "baseline: none, decay: 0.9"):
        load_config(TINY, [f"method={{kind: reinforce, {settings}}}"])
    with pytest.raises(
        ConfigError, match=r"method.decay=0.5 is of the baseline moving_average, and method.baseline=none; use baseline"
    ):
        load_config(TINY, ["method={kind: reinforce, baseline: none, decay: 0.5}"])
