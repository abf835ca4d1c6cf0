"""Demonstrations as token ids, and what is left out of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from configs.errors import ConfigError
from configs.records import Problem
from configs.schema.grpo import GrpoConfig
from configs.schema.methods.cold_start import DemonstrationsConfig
from configs.schema.problems import ProblemsConfig
from grpo_train.methods.demonstrations import Demonstration, DemonstrationsRead, read_demonstrations
from grpo_train.methods.given_samples import Training, in_epochs
from grpo_train.methods.offline_best_of_n import imitate
from grpo_train.policies.tiny_model import END, START, build_tiny_model, build_tiny_tokenizer
from grpo_train.problems.splits import build_prompt
from reward_training.transformer.rendering import encode_prompts

SUM = {"question": "2 + 3 = ?", "response": "It is 5."}
WORDS = "Ann has two red apples and gives one of them to Ben; how many has she"


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tiny_tokenizer()


def problems_config(**fields: Any) -> ProblemsConfig:
    return ProblemsConfig.model_validate({"sources": [{"kind": "file", "path": "problems.jsonl"}], **fields})


def read(
    folder: Path,
    rows: list[Any],
    tokenizer: PreTrainedTokenizerFast,
    held_out: list[Problem] | None = None,
    problems: ProblemsConfig | None = None,
    **settings: Any,
) -> DemonstrationsRead:
    path = folder / "demonstrations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DemonstrationsConfig.model_validate({"path": str(path), **settings})
    problems = problems or problems_config()
    return read_demonstrations(config, problems, tokenizer, held_out or [], max_response_length=40)


def texts(tokenizer: PreTrainedTokenizerFast, one: Demonstration) -> tuple[str, str]:
    return tokenizer.decode(one.prompt_ids), tokenizer.decode(one.token_ids)


def held_out(question: str, problems: ProblemsConfig, source: str = "problems.jsonl") -> Problem:
    prompt = build_prompt(question, problems, has_chat_template=True)
    return Problem(key=question, prompt=prompt, answer="5", source=source, split="test")


# ---- tokens ---------------------------------------------------------------------------------------------------------


def test_a_demonstration_is_the_prompt_of_a_problem_and_the_response_with_the_end_of_a_turn(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    problems = problems_config(template="Solve {question} now", system="Be brief.")
    [one] = read(tmp_path, [SUM], tokenizer, problems=problems).kept
    prompt = build_prompt("2 + 3 = ?", problems, has_chat_template=True)
    assert one.prompt_ids == encode_prompts(tokenizer, [prompt])[0]
    assert texts(tokenizer, one) == (
        f"{START}system\nBe brief.{END}\n{START}user\nSolve 2 + 3 = ? now{END}\n{START}assistant\n",
        f"It is 5.{END}",
    )


def test_a_conversation_is_asked_up_to_its_last_user_and_answered_by_the_assistant_after_it(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    said = [("system", "Add."), ("user", "1 + 1?"), ("assistant", "2"), ("user", "And 1?"), ("assistant", "3")]
    row = {"messages": [{"role": role, "content": content} for role, content in said]}
    [one] = read(tmp_path, [row], tokenizer, question="messages", response="messages").kept
    turns = "".join(f"{START}{role}\n{content}{END}\n" for role, content in said[:-1])
    assert texts(tokenizer, one) == (f"{turns}{START}assistant\n", f"3{END}")


def test_a_response_that_ends_with_the_end_of_a_turn_gets_no_second_one(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.backend_tokenizer.add_special_tokens([END])
    [one] = read(tmp_path, [SUM | {"response": f"5{END}"}], tokenizer).kept
    assert one.token_ids == [*tokenizer("5")["input_ids"], tokenizer.eos_token_id]


def test_plain_text_is_continued_and_ends_with_the_end_of_sequence(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.chat_template = None
    [one] = read(tmp_path, [SUM | {"response": " 5"}], tokenizer).kept
    assert texts(tokenizer, one) == ("2 + 3 = ?", f" 5{END}")


OPENED = "<|im_start|>assistant\n<think>\n"


@pytest.mark.parametrize("response", ["<think>\n2, 3</think> 5", "<think>2, 3</think> 5", "2, 3</think> 5"])
def test_a_thought_that_the_prompt_begins_is_not_begun_twice(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, response: str
) -> None:
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "<|im_start|>assistant\n{% endif", f"{OPENED}{{% endif"
    )
    [one] = read(tmp_path, [SUM | {"response": response}], tokenizer).kept
    assert texts(tokenizer, one)[1] == f"2, 3</think> 5{END}"


def test_a_response_that_leaves_that_thought_open_is_left_out(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "<|im_start|>assistant\n{% endif", f"{OPENED}{{% endif"
    )
    rows = [SUM, SUM | {"response": "2, 3</think> 5"}]
    assert read(tmp_path, rows, tokenizer).left_out == {"open_thought": 1}


# ---- what is left out -----------------------------------------------------------------------------------------------


def test_rows_that_cannot_be_imitated_are_counted_by_reason(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """40 tokens hold 39 characters and the end of the turn."""
    fine = [SUM | {"question": f"{i} + 3 = ?"} for i in range(10)]
    faulty = [
        SUM | {"response": "x" * 40},
        SUM | {"question": "y" * 600},
        SUM | {"question": " "},
        SUM | {"response": None},
        SUM | {"response": [{"role": "user", "content": "5?"}]},
        SUM | {"response": 5},
        fine[0],
    ]
    found = read(tmp_path, [*fine, SUM | {"response": "x" * 39}, *faulty], tokenizer)
    counts = {"long_response": 1, "long_prompt": 1, "empty": 2, "no_response": 1, "unreadable": 1, "duplicate": 1}
    assert (found.num_rows, len(found.kept), found.left_out) == (18, 11, counts)
    assert "1 with a response over grpo_config.max_response_length" in found.told
    assert "line 12: 41 tokens" in found.told


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([], {}, "is empty; it needs a row a demonstration"),
        ([SUM], {"response": "answer"}, "no column 'answer'; set cold_start.demonstrations.response to one of"),
        ([SUM], {"question": "prompt"}, "no column 'prompt'; set cold_start.demonstrations.question to one of"),
        ([SUM | {"response": ""}], {}, "1 of 1 rows are left out, without a question or a response"),
        ([SUM | {"response": "x" * 90}], {}, "raise grpo_config.max_response_length"),
        ([SUM | {"question": "x" * 900}], {}, "raise problems.max_prompt_length"),
    ],
)
def test_a_file_that_gives_nothing_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, rows: list[Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, rows, tokenizer, **settings)


def test_a_missing_file_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    config = DemonstrationsConfig(path="gone.jsonl")
    with pytest.raises(ConfigError, match=r"gone\.jsonl does not exist; set cold_start.demonstrations.path"):
        read_demonstrations(config, problems_config(), tokenizer, [], max_response_length=40)


# ---- dev and test ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "is_left_out"),
    [
        ("2 + 3 = ?", True),
        ("  2  +  3 = ?", True),
        ("2 + 4 = ?", False),
        (f"{WORDS} then?", True),  # the words of a problem with another end
    ],
)
def test_questions_of_dev_and_test_are_left_out_whatever_stands_around_them(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, question: str, is_left_out: bool
) -> None:
    problems = problems_config(template="Please answer this question with one number: {question}", system="Be brief.")
    asked = [held_out("2 + 3 = ?", problems), held_out(f"{WORDS} now?", problems)]
    rows = [SUM | {"question": "7 + 7 = ?"}, SUM | {"question": question}]
    found = read(tmp_path, rows, tokenizer, asked, problems)
    assert found.left_out == ({"held_out": 1} if is_left_out else {})
    assert len(found.kept) == 2 - is_left_out


def test_questions_of_a_procedural_family_may_share_phrases(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    problems = problems_config(sources=[{"kind": "reasoning_gym", "family": "gcd", "size": 9}])
    asked = [held_out(f"{WORDS} now?", problems, source="gcd")]
    assert not read(tmp_path, [SUM | {"question": f"{WORDS} then?"}], tokenizer, asked, problems).left_out


def test_they_are_refused_where_overlap_is(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    problems = problems_config(overlap={"action": "refuse"})
    with pytest.raises(
        ConfigError, match=r"1 rows ask what dev or test asks, for instance .* line 1 and a problem of test"
    ):
        read(tmp_path, [SUM], tokenizer, [held_out("2 + 3 = ?", problems)], problems)


def test_a_file_of_nothing_else_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    problems = problems_config()
    with pytest.raises(ConfigError, match="leaves nothing to imitate of 1 rows: 1 with a question of dev or test"):
        read(tmp_path, [SUM], tokenizer, [held_out("2 + 3 = ?", problems)], problems)


# ---- training -------------------------------------------------------------------------------------------------------


def fine_tuned(
    model: LlamaForCausalLM, kept: list[Demonstration], order: list[int], *, rate: float, batch_size: int
) -> LlamaForCausalLM:
    """A plain loop: AdamW on the mean of - log p over an update's response tokens, one sequence at a time."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.999), weight_decay=0.0)
    for start in range(0, len(order), batch_size):
        batch = [kept[i] for i in order[start : start + batch_size]]
        loss = torch.zeros((), dtype=torch.float64)
        for one in batch:
            logits = model(torch.tensor([one.prompt_ids + one.token_ids])).logits[0, len(one.prompt_ids) - 1 : -1]
            loss = loss + torch.nn.functional.cross_entropy(logits, torch.tensor(one.token_ids), reduction="sum")
        (loss / sum(len(one.token_ids) for one in batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_the_weights_are_those_of_a_plain_loop_over_the_same_rows(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [{"question": f"{i} + {i} = ?", "response": "so " * (i % 3) + f"{2 * i}"} for i in range(10)]
    kept = read(tmp_path, rows, tokenizer).kept
    grpo = GrpoConfig(
        precision="float32", micro_batch_tokens=128, learning_rate=1e-3, adam_betas=(0.9, 0.999), weight_decay=0.0,
        max_grad_norm=1.0, schedule="constant", warmup_updates=0,
    )  # fmt: skip
    training = Training(grpo, 0, 0, lambda step, metrics: None, lambda: False)
    # in float32, Adam makes much of the rounding of tiny gradients; the loss stays float32
    model = build_tiny_model(tokenizer).double()
    start = copy.deepcopy(model)
    assert imitate(model, tokenizer, kept, epochs=2, batch_size=4, training=training) == 5
    reference = fine_tuned(copy.deepcopy(start), kept, in_epochs(10, 2, training), rate=1e-3, batch_size=4)
    for name, weight in reference.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), weight, rtol=0, atol=1e-6)
    moved = max(
        float((weight - start.get_parameter(name)).detach().abs().max())
        for name, weight in reference.named_parameters()
    )
    assert moved > 1e-3
