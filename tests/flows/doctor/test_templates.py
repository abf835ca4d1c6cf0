"""What the doctor says of chat templates, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, ViTConfig

from configs.reader import load_config
from configs.records import TemplateSettings
from flows.cli import main
from flows.doctor.checks import Finding
from flows.doctor.preflight import Preflight, preflight_checks, unheard_end
from flows.doctor.report import check
from reward_training.transformer.chat_template import set_up_template
from tests.paths import TINY
from tests.reward_training.conftest import completion
from tests.reward_training.transformer.templates import (
    CHATML,
    DATED,
    PLAIN_TURNS,
    STRICT,
    STRIPPING,
    THINKING,
    tokenizer_with,
)

Told = Callable[..., dict[str, Finding]]


def save_policy_with(template: str, folder: Path) -> Path:
    tokenizer = tokenizer_with(template)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **sizes)
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture
def told(workspace: Path) -> Told:
    """The doctor's findings, by name, on the tiny preset with that template and those blocks."""

    def findings(template: str, **blocks: Any) -> dict[str, Finding]:
        data = yaml.safe_load(TINY.read_text())
        data["policy"] = {"path": str(save_policy_with(template, workspace / "policy"))}
        for name, value in blocks.items():
            data[name] = {**data.get(name, {}), **value}
        path = workspace / "config.yaml"
        path.write_text(yaml.safe_dump(data))
        report = check(load_config(path), workspace, quick=True)
        return {finding.name: finding for finding in report.findings}

    return findings


def test_a_template_without_surprises(told: Told) -> None:
    found = told(CHATML)
    assert found["prompts"].detail.endswith(r"<|im_end|>\n<|im_start|>assistant\n'")
    assert found["turn end"] == Finding("turn end", "ok", "'<|im_end|>' ends a response")
    assert {"date", "system message", "template of taste"}.isdisjoint(found)


@pytest.mark.parametrize(
    ("problems", "words"),
    [
        ({"system": "Be brief."}, "set problems.join_system=true"),
        ({"template_variables": {"enable_thinking": False}}, "template_variables.enable_thinking"),
    ],
)
def test_what_the_template_refuses_fails(problems: dict[str, Any], words: str, told: Told) -> None:
    found = told(STRICT, problems=problems)
    assert words in next(finding.detail for finding in found.values() if finding.status == "fail")


def test_a_system_message_that_is_joined_passes(told: Told) -> None:
    assert "fail" not in {
        finding.status for finding in told(STRICT, problems={"system": "Hm.", "join_system": True}).values()
    }


def test_questions_of_two_user_turns_fail_on_the_actual_data(told: Told, workspace: Path) -> None:
    """One row of 160 has them; the first rows do not."""
    turns = [{"role": "user", "content": "Hello."}, {"role": "user", "content": "What is 3 + 4?"}]
    rows: list[dict[str, Any]] = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(180)]
    rows[150]["question"] = turns
    (workspace / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {"sources": [{"kind": "jsonl", "path": "rows.jsonl"}], "overlap": {"action": "drop"}}
    found = told(STRICT, problems=sources)["problems"]
    assert found.status == "fail"
    assert (
        "the turns user, user: Roles must alternate (the last is 'What is 3 + 4?'); join turns of one" in found.detail
    )


def test_a_dropped_system_message_is_warned_of(told: Told) -> None:
    dropping = CHATML.replace(
        "{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"
    )
    found = told(dropping, problems={"system": "Be brief."})["system message"]
    assert (found.status, found.remedy[:30]) == ("warn", "set problems.join_system=true ")


def test_the_date_is_that_of_the_run(told: Told) -> None:
    assert "the run keeps the day on which it starts" in told(DATED)["date"].detail
    assert "the run keeps 2024-02-29" in told(DATED, run={"date": "2024-02-29"})["date"].detail


def test_a_variable_that_changes_nothing_is_warned_of(told: Told) -> None:
    found = told(THINKING, problems={"template_variables": {"enable_thinking": False}})
    assert found["template variable enable_thinking"].status == "ok"
    assert found["prompts"].detail.endswith("<think></think>'")
    wrong = told(THINKING, problems={"template_variables": {"enable_thinking": "off"}})
    assert wrong["template variable enable_thinking"].status == "warn"
    assert "'off' changes nothing" in wrong["template variable enable_thinking"].detail


def test_a_policy_that_an_earlier_run_saved_is_judged_by_this_configuration(told: Told) -> None:
    saved = tokenizer_with(STRICT + "{{ effort | default('high') }}")
    settings = TemplateSettings(variables={"effort": "low"}, join_system=True)
    set_up_template(saved, settings, field="problems.template_variables")
    same = told(saved.chat_template, problems={"template_variables": {"effort": "low"}})
    assert same["template variable effort"].status == "ok"
    other = told(saved.chat_template, problems={"system": "Be brief."})
    assert "set problems.join_system=true" in other["problems"].detail


def test_a_turn_that_ends_in_plain_text_is_warned_of(told: Told) -> None:
    found = told(PLAIN_TURNS)["turn end"]
    assert found.status == "warn"
    assert "'### user:', which ends no response; only '<|endoftext|>' does" in found.detail
    assert "max_response_length" not in found.remedy


def test_truncated_responses_that_hold_a_turn_end() -> None:
    plain = tokenizer_with(PLAIN_TURNS)
    going_on, cut_off = (
        completion(text, num_tokens=0, finish_reason="length") for text in ("5\n\n### user:\nWhat", "5 5 5")
    )
    assert unheard_end(plain, [going_on, cut_off]) is None
    assert unheard_end(plain, [going_on, going_on, cut_off]) == "### user:"
    special = tokenizer_with(CHATML + "{# <|eot_id|> #}")
    eot = special.convert_tokens_to_ids("<|eot_id|>")
    written = completion("5", finish_reason="length").model_copy(update={"token_ids": [40, eot, 41]})
    assert unheard_end(special, [written]) == "<|eot_id|>"
    assert unheard_end(special, [completion("5", num_tokens=0)]) is None


def test_more_room_is_no_remedy_where_the_turn_has_ended() -> None:
    result = Preflight(4, [0.5], 0.3, 0.92, 12, [], [], unheard_end="<|eot_id|>")
    [found] = [finding for finding in preflight_checks(result, load_config(TINY)) if finding.name == "truncated"]
    assert found.status == "warn"
    assert found.detail.startswith("92% of the responses end at the length limit, and most of them hold '<|eot_id|>'")
    assert "max_response_length" not in found.remedy
    assert "generation_config.json" in found.remedy


# ---- reward models --------------------------------------------------------------------------------------------------


def test_a_template_that_strips_thoughts_or_refuses_empty_responses_is_warned_of(told: Told) -> None:
    assert "strips thoughts" in told(STRIPPING)["template of taste"].detail
    assert "does not take an empty response" in told(STRICT)["template of taste"].detail


def test_pairs_of_a_file_that_render_alike(told: Told, workspace: Path) -> None:
    rows = [
        {
            "prompt": f"Say {i}",
            "chosen": f"<think>{i}</think>5",
            "rejected": "<think>hm</think>" + ("5" if i < 30 else "6"),
        }
        for i in range(160)
    ]
    path = workspace / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labeler = {"reward_models": {"taste": {"kind": "trained", "labeler": {"kind": "file", "path": "pairs.jsonl"}}}}
    found = told(STRIPPING, **labeler)["pairs of taste"]
    assert found.status == "warn"
    assert found.detail.startswith("30 of 160 pairs are left out, because the chat template of")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:30] * 4))
    assert told(STRIPPING, **labeler)["pairs of taste"].status == "fail"
    assert "pairs of taste" not in told(CHATML, **labeler)


def test_a_system_message_of_a_preference_file_that_the_template_drops_is_warned_of(
    told: Told, workspace: Path
) -> None:
    dropping = CHATML.replace("in messages %}", "in messages if message.role != 'system' %}")
    rows = [
        {
            "prompt": [{"role": "system", "content": system}, {"role": "user", "content": f"Say {i}"}],
            "chosen": chosen,
            "rejected": rejected,
        }
        for system, chosen, rejected in (("Be curt.", "5", "It is 5"), ("Be wordy.", "It is 5", "5"))
        for i in range(40)
    ]
    (workspace / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labeler = {"taste": {"kind": "trained", "labeler": {"kind": "file", "path": "pairs.jsonl"}}}
    found = told(dropping, reward_models=labeler)
    assert found["template of taste"].status == found["prompts of taste"].status == "warn"
    assert "does not write the system message 'Be curt.'" in found["template of taste"].detail
    assert found["template of taste"].remedy.startswith("set problems.join_system=true")
    assert found["prompts of taste"].detail.startswith("the prompts of 80 of 80 pairs hold a message")
    joined = told(dropping, reward_models=labeler, problems={"join_system": True})
    assert {"template of taste", "prompts of taste"}.isdisjoint(joined)


def test_pairs_of_a_file_that_are_too_long(told: Told, workspace: Path) -> None:
    """A token is a character here; one pair in ten is longer than the others by 100."""
    rows = [
        {"prompt": f"Say {i:04}", "chosen": "5" if i % 10 else "5" * 101, "rejected": f"{i % 7}a"} for i in range(700)
    ]
    (workspace / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def found(max_length: int) -> Finding | None:
        block = {"kind": "trained", "labeler": {"kind": "file", "path": "pairs.jsonl"}, "max_length": max_length}
        return told(CHATML, reward_models={"taste": block}).get("lengths of taste")

    assert found(160) is None
    some, none = found(60), found(8)
    assert some is not None
    assert none is not None
    assert some.status == "warn"
    assert "of 512 pairs do not fit into max_length=60 tokens" in some.detail
    assert none.status == "fail"
    assert "fits into max_length=8 tokens: the shortest needs " in none.detail
    assert none.detail.endswith("; raise reward_models.taste.max_length")


def test_prompts_of_a_file_that_the_template_refuses_fail(told: Told, workspace: Path) -> None:
    prompt = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    rows = [{"prompt": prompt if i == 99 else f"Say {i}", "chosen": "5", "rejected": "6"} for i in range(160)]
    (workspace / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labeler = {"taste": {"kind": "trained", "labeler": {"kind": "file", "path": "pairs.jsonl"}}}
    assert told(STRICT, reward_models=labeler)["template of taste"].status == "fail"


def test_a_backbone_without_a_classifier_in_transformers_passes_and_one_that_is_no_language_model_fails(
    told: Told, workspace: Path
) -> None:
    tokenizer = tokenizer_with(CHATML)
    granite = AutoConfig.for_model(
        "granite", vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(granite).save_pretrained(str(workspace / "granite"))
    tokenizer.save_pretrained(str(workspace / "granite"))
    taste: dict[str, Any] = {"kind": "trained", "labeler": {"kind": "score"}, "min_pairs": 16}
    found = told(CHATML, reward_models={"taste": taste | {"backbone": {"path": "granite"}}})
    assert "fail" not in {finding.status for finding in found.values()}
    ViTConfig().save_pretrained(str(workspace / "granite"))
    assert main(["doctor", "config.yaml"]) == 2
    found = told(CHATML, reward_models={"taste": taste | {"backbone": {"path": "granite"}}})
    assert any(f.status == "fail" and "no reward model can be made of vit" in f.detail for f in found.values())
