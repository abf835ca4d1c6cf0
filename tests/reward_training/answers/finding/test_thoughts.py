"""Thoughts count for nothing: what follows the last closing mark is the answer, and a thought that is cut off has none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.records import Completion, Problem
from configs.schema.rewards import OutcomeRewardConfig
from reward_training.answers.finding.thoughts import answer_of, begun_by, mark_tokens
from reward_training.rewards.outcome import OutcomeReward, given_answer

Make = Callable[..., Completion]
MakeProblem = Callable[..., Problem]

PAIRS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "\u25c1think\u25b7": "\u25c1/think\u25b7",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|channel>thought": "<channel|>",
    "<|channel|>analysis<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
}
PROMPT_ENDS = {
    "<\uff5cAssistant\uff5c><think>\n": "<think>\n",  # DeepSeek-R1
    "<|im_start|>assistant\n<think>\n": "<think>\n",  # QwQ, Qwen3 Thinking
    "<|im_start|>assistant\n<think>": "<think>",
    "Assistant: Let me solve this.\n<think>": "<think>",  # a prompt without a template
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>": "<|START_THINKING|>",  # Command A Reasoning
    "<|start|>assistant<|channel|>analysis<|message|>": "<|channel|>analysis<|message|>",
    "<|im_start|>assistant\n": "",  # Qwen3
    "<|im_start|>assistant\n<think>\n\n</think>\n\n": "",  # Qwen3 with enable_thinking=False
    "<start_of_turn>model\n<|channel>thought\n<channel|>": "",
    "Think in <think> first.<|im_end|>\n<|im_start|>assistant\n": "",  # the mark is only spoken of
    "": "",
}


@pytest.mark.parametrize(("opening", "closing"), PAIRS.items())
def test_of_each_kind_of_mark_the_thought_goes_and_the_answer_stays(opening: str, closing: str) -> None:
    assert answer_of(f"{opening}7 or 8{closing}8") == "8"
    assert answer_of(f"7 or 8{closing}8") == "8"  # the prompt has opened it, in a file that does not say so
    assert answer_of(f"It is 7. {opening}or 8{closing}8") == "8"
    assert answer_of(f"{opening}7{closing}8{opening}9{closing}10") == "10"
    assert answer_of(f"{opening}7{closing}") == ""
    assert answer_of(f"{opening}7 or 8") == ""  # cut off
    assert answer_of(f"{opening}7{closing}8{opening}9") == "8"  # a second one is: the answer stands before it


@given(st.text(alphabet="ab8. \n<>/|", max_size=40))
def test_a_text_without_marks_is_all_answer(text: str) -> None:
    assert answer_of(text) == text


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(sorted(PAIRS)))
def test_what_is_thought_changes_nothing(thought: str, answer: str, opening: str) -> None:
    marks = PAIRS[opening]
    plain = answer_of(opening + marks + answer)
    if answer_of(thought) == thought:  # it has no marks of its own
        assert answer_of(opening + thought + marks + answer) == plain


def test_marks_are_read_in_any_case_and_each_is_closed_by_its_own() -> None:
    assert answer_of("<Think>7</THINK>8") == "8"
    assert answer_of("<think>7</thinking>8") == ""


def test_a_message_of_gpt_oss_ends_where_it_says_so() -> None:
    final = "<|channel|>final<|message|>"
    assert answer_of(f"<|channel|>analysis<|message|>7<|end|><|start|>assistant{final}8<|end|>") == "8"
    assert answer_of("<|channel|>commentary<|message|>I will look it up: 7") == ""
    assert answer_of("<|channel|>final <|constrain|>json<|message|>8") == "8"


@pytest.mark.parametrize(("prompt", "begun"), PROMPT_ENDS.items())
def test_what_a_prompt_begins_is_its_last_mark_alone(prompt: str, begun: str) -> None:
    assert begun_by(prompt) == begun


def test_the_end_of_a_message_is_a_mark_only_beside_channels() -> None:
    assert mark_tokens({"<|end|>", "<|user|>", "</think>"}) == {"</think>"}
    assert mark_tokens({"<|end|>", "<|channel|>", "<|call|>"}) == {"<|end|>", "<|channel|>"}


STRICT = {"extract": "final"}, {"extract": "boxed"}, {"extract": "last_number", "strict": True}


@pytest.mark.parametrize("settings", STRICT)
def test_a_thought_that_the_prompt_opened_has_no_answer(
    settings: dict[str, object], make_problem: MakeProblem, make_completion: Make
) -> None:
    """The opening mark stands in the prompt, so the number in the thought was taken for the answer."""
    reward = OutcomeReward(OutcomeRewardConfig.model_validate({"name": "correct", **settings}))
    eight = "\\boxed{8}" if settings["extract"] == "boxed" else "8"
    texts = [
        f"the answer is {eight}\n</think>\n\nI do not know.",
        f"the answer is {eight}",  # cut off
        f"7?\n</think>\n\nThe answer is {eight}.",
        f"7?\n</think>\n\nThe answer is {eight}. <think>or 9",
    ]
    completions = [make_completion(text, begun="<think>\n") for text in texts]
    assert reward([make_problem(answer="8")] * 4, completions) == [0.0, 0.0, 1.0, 1.0]
    assert reward([make_problem(answer="8")], [make_completion(texts[1])]) == [1.0]  # nothing was begun


@pytest.mark.parametrize(("extract", "answer"), [("last_number", "9"), ("tag", "7"), ("whole", "7</answer> 9")])
def test_plain_extraction_reads_the_text_as_it_is(
    extract: str, answer: str, make_problem: MakeProblem, make_completion: Make
) -> None:
    text = "7</answer> 9" if extract == "whole" else "<answer>7</answer></think> 9"
    config = OutcomeRewardConfig.model_validate({"name": "correct", "extract": extract})
    assert given_answer(make_problem(), make_completion(text, begun="<think>\n"), config) == answer


def test_a_completion_of_an_older_file_began_with_nothing(make_completion: Make) -> None:
    line = make_completion("8").model_dump_json(exclude={"begun"})
    assert "begun" not in line
    assert Completion.model_validate_json(line).response == "8"
    begun = make_completion("8", begun="<think>")
    assert Completion.model_validate_json(begun.model_dump_json()) == begun
