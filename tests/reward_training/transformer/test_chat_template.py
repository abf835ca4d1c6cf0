"""What a run gives to chat templates, and how one that refuses messages is told."""

from __future__ import annotations

import copy
import datetime
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from configs.errors import ConfigError, TemplateRefusal
from configs.records import Message, TemplateSettings
from reward_training.transformer import chat_template
from reward_training.transformer.chat_template import (
    HEADER,
    PLAIN,
    reads_date,
    set_up_template,
    shape,
    variables_of,
)
from reward_training.transformer.rendering import conversation_text, prompt_text, try_conversation_text
from tests.reward_training.transformer.templates import (
    CHATML,
    DATED,
    STRICT,
    STRIPPING,
    THINKING,
    of_trl,
    tokenizer_with,
)

FIELD = "problems.template_variables"
ASKED: list[Message] = [{"role": "user", "content": "2 + 3?"}]
SYSTEM: Message = {"role": "system", "content": "Be brief."}
LEAP_DAY = datetime.date(2024, 2, 29)


def set_up(template: str, **given_settings: Any) -> PreTrainedTokenizerBase:
    tokenizer = tokenizer_with(template)
    set_up_template(tokenizer, TemplateSettings(**given_settings), field=FIELD)
    return tokenizer


# ---- variables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("qwen3", ["enable_thinking"]),  # sets `content` in branches, which is no variable
        ("qwen2_5", []),
        ("llama3_2", ["custom_tools", "date_string", "tools_in_user_message"]),
        ("gptoss", ["builtin_tools", "model_identity", "reasoning_effort"]),
        ("gemma4_v5", ["enable_thinking", "preserve_thinking"]),
        ("nemotron_3_super", ["enable_thinking", "low_effort", "truncate_history_thinking"]),
    ],
)
def test_variables_are_what_a_real_template_reads_and_does_not_set_itself(name: str, variables: list[str]) -> None:
    assert variables_of(tokenizer_with(of_trl(name))) == variables


def test_a_variable_reaches_the_prompt_and_the_saved_tokenizer(tmp_path: Path) -> None:
    tokenizer = set_up(THINKING, variables={"enable_thinking": False})
    ends = "<|im_start|>assistant\n<think></think>"
    assert prompt_text(tokenizer, ASKED).endswith(ends)
    tokenizer.save_pretrained(str(tmp_path))
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    assert again.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True).endswith(ends)
    assert again.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True, enable_thinking=True).endswith(
        "<|im_start|>assistant\n"
    )


def test_a_variable_of_a_real_template() -> None:
    tokenizer = set_up(of_trl("gptoss"), variables={"reasoning_effort": "high"}, date=LEAP_DAY)
    text = prompt_text(tokenizer, ASKED)
    assert "Reasoning: high" in text
    assert "Current date: 2024-02-29" in text


def test_a_template_that_was_set_up_once_is_not_set_up_twice() -> None:
    """A round loads the policy that the last one saved with its variables."""
    tokenizer = set_up(THINKING, variables={"enable_thinking": False}, join_system=True)
    once = tokenizer.chat_template
    set_up_template(tokenizer, TemplateSettings(variables={"enable_thinking": False}, join_system=True), field=FIELD)
    assert tokenizer.chat_template == once


@pytest.mark.parametrize("of_before", ["written", "older"])
def test_a_later_run_decides_alone_what_a_saved_template_is_given(of_before: str, tmp_path: Path) -> None:
    """A policy that a run saved, or that was exported, is where a run with other settings begins."""
    effort = STRICT + "{{ effort | default('high') }}"
    earlier = set_up(effort, variables={"effort": "low"}, join_system=True)
    if of_before == "older":  # the line did not name its writer
        earlier.chat_template = earlier.chat_template.removeprefix(HEADER)
    earlier.save_pretrained(str(tmp_path))
    for given_settings in ({}, {"variables": {"effort": "none"}}, {"join_system": True}):
        saved = AutoTokenizer.from_pretrained(str(tmp_path))
        set_up_template(saved, TemplateSettings(**given_settings), field=FIELD)
        assert saved.chat_template == set_up(effort, **given_settings).chat_template
    bare = AutoTokenizer.from_pretrained(str(tmp_path))
    bare.chat_template = earlier.chat_template.replace(effort, STRICT)
    with pytest.raises(ConfigError, match=r"effort: .* reads no such variable \(it reads none\)"):
        set_up_template(bare, TemplateSettings(variables={"effort": "low"}), field=FIELD)
    kept = AutoTokenizer.from_pretrained(str(tmp_path))
    set_up_template(kept, PLAIN, field=FIELD)
    assert prompt_text(kept, [SYSTEM, *ASKED]) == "[user] Be brief.\n\n2 + 3?<|eot|>\n[assistant] low"


def test_a_first_line_that_the_model_brings_itself_stays() -> None:
    own = "{%- if effort is not defined %}{%- set effort = 'low' %}{%- endif %}\n" + CHATML + "{{ effort }}"
    assert set_up(own).chat_template == own
    assert prompt_text(set_up(own, variables={"effort": "high"}), ASKED).endswith("assistant\nhigh")


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_value_arrives_as_it_is(value: Any) -> None:
    tokenizer = tokenizer_with("{{ extra | tojson }}|" + CHATML)
    plain = tokenizer.apply_chat_template(ASKED, tokenize=False, extra=value)
    set_up_template(tokenizer, TemplateSettings(variables={"extra": value}), field=FIELD)
    assert tokenizer.apply_chat_template(ASKED, tokenize=False) == plain


@pytest.mark.parametrize("beginning", ["", "\n", "  ", "\n  {% if true %}a{% endif %}\n", "{# a comment #}\n\n"])
def test_the_header_writes_nothing_whatever_the_template_begins_with(beginning: str) -> None:
    plain = tokenizer_with(beginning + THINKING)
    tokenizer = set_up(beginning + THINKING, variables={"enable_thinking": True}, join_system=True)
    assert prompt_text(tokenizer, ASKED) == prompt_text(plain, ASKED)


def test_without_settings_the_template_is_left_alone() -> None:
    assert set_up(DATED).chat_template == DATED


def test_a_variable_that_no_template_reads_is_refused_with_those_that_it_reads() -> None:
    with pytest.raises(ConfigError, match=r"template_variables\.enable_thought: .* \(it reads enable_thinking\)"):
        set_up(THINKING, variables={"enable_thought": False})
    with pytest.raises(ConfigError, match=r"template_variables\.content: .* \(it reads none\)"):
        set_up(of_trl("qwen3_instruct_2507"), variables={"content": "x"})
    bare = tokenizer_with(CHATML)
    bare.chat_template = None
    with pytest.raises(ConfigError, match="has no chat template to read it"):
        set_up_template(bare, TemplateSettings(variables={"x": 1}), field=FIELD)


def test_a_reward_model_gets_the_variables_that_its_own_template_reads() -> None:
    given_settings = TemplateSettings(variables={"enable_thinking": False, "reasoning_effort": "low"})
    tokenizer = tokenizer_with(THINKING)
    set_up_template(tokenizer, given_settings, field=None)
    assert "enable_thinking = False" in tokenizer.chat_template
    assert "reasoning_effort" not in tokenizer.chat_template
    plain = tokenizer_with(CHATML)
    set_up_template(plain, given_settings, field=None)
    assert plain.chat_template == CHATML


def test_a_broken_template_is_named_with_its_line() -> None:
    with pytest.raises(ConfigError, match="is broken, line 2"):
        set_up("{% for m in messages %}\n{% endif %}")


def test_a_value_that_the_template_cannot_use_is_told() -> None:
    tokenizer = set_up("{{ 'Effort: ' + effort }}" + CHATML, variables={"effort": 3})
    with pytest.raises(TemplateRefusal, match=r"can only concatenate str.*problems\.template_variables"):
        prompt_text(tokenizer, ASKED)


# ---- date -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["llama3_2", "gptoss", "muse_glimmer"])
def test_real_templates_write_the_run_date(template: str) -> None:
    tokenizer = set_up(of_trl(template), date=LEAP_DAY)
    assert reads_date(tokenizer)
    text = prompt_text(tokenizer, ASKED)
    assert "29 Feb 2024" in text or "2024-02-29" in text


@settings(deadline=None, max_examples=20)
@given(st.dates(datetime.date(1970, 1, 1), datetime.date(2200, 1, 1)))
def test_the_clock_writes_what_strftime_does(date: datetime.date) -> None:
    form = "%A %a %B %b %d %-d %m %-m %Y %y %j %H:%M:%S %I %p %F %x %U %% %e"
    tokenizer = set_up("{{ strftime_now('" + form + "') }}", date=date)
    midnight = datetime.datetime.combine(date, datetime.time())
    assert tokenizer.apply_chat_template(ASKED, tokenize=False) == midnight.strftime(form)


def test_the_date_is_not_saved_and_a_copy_keeps_it(tmp_path: Path) -> None:
    tokenizer = set_up(DATED, date=LEAP_DAY)
    assert prompt_text(copy.deepcopy(tokenizer), ASKED).startswith("Today: 29 Feb 2024.\n")
    tokenizer.save_pretrained(str(tmp_path))
    assert AutoTokenizer.from_pretrained(str(tmp_path)).chat_template == DATED


def test_a_date_given_as_a_variable_wins() -> None:
    tokenizer = set_up(DATED, date=LEAP_DAY, variables={"day": "1 April"})
    assert prompt_text(tokenizer, ASKED).startswith("Today: 1 April.\n")


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "words", "remedy"),
    [
        (
            [SYSTEM, *ASKED],
            r"the turns system, user: System role not supported \(the last is '2 \+ 3\?'\)",
            "problems.join_system=true",
        ),
        ([*ASKED, *ASKED], "the turns user, user: Roles must alternate .*", "join turns of one role"),
        ([{"role": "user", "content": " "}], r"the turns user \(empty\): Empty message .*", "fill or leave out"),
    ],
)
def test_a_refusal_has_the_turns_the_words_of_the_template_and_the_remedy(
    messages: list[Message], words: str, remedy: str
) -> None:
    with pytest.raises(TemplateRefusal, match=f"{words}; .*{remedy}"):
        prompt_text(tokenizer_with(STRICT), messages)


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("messages[-1].content.index('zzz')", "ValueError: substring not found"),
        ("'{missing}'.format(1)", "KeyError: 'missing'"),
        ("'{2}'.format(1)", "IndexError: "),
        ("'%c' % -1", "OverflowError: "),
        ("messages[-1].content.encode('ascii')", "UnicodeEncodeError: 'ascii' codec"),
        ("messages[-1].content | int + none", "TypeError: unsupported operand"),
        ("messages[-1].content.nothing.more", "no attribute 'nothing'"),
        ("cycle(messages)", "RecursionError: "),
    ],
)
def test_whatever_a_template_raises_is_a_refusal_that_names_the_message(expression: str, error: str) -> None:
    cycle = "{% macro cycle(x) %}{{ cycle(x) }}{% endmacro %}"
    tokenizer = tokenizer_with(cycle + "{{ " + expression + " }}" + CHATML)
    for rendered in (prompt_text, partial(conversation_text, response="é")):
        with pytest.raises(TemplateRefusal, match="does not take the turns user") as refused:
            rendered(tokenizer, [{"role": "user", "content": "2 + 3, é?"}])
        assert error in str(refused.value)
    assert try_conversation_text(tokenizer, [{"role": "user", "content": "é"}], "é") is None


def test_the_system_message_is_joined_to_the_first_user_message_where_asked() -> None:
    tokenizer = set_up(STRICT, join_system=True)
    assert prompt_text(tokenizer, [SYSTEM, *ASKED]) == "[user] Be brief.\n\n2 + 3?<|eot|>\n[assistant] "
    assert prompt_text(tokenizer, ASKED) == "[user] 2 + 3?<|eot|>\n[assistant] "
    assert conversation_text(tokenizer, [SYSTEM, *ASKED], "5").startswith(
        "[user] Be brief.\n\n2 + 3?<|eot|>\n[assistant] 5"
    )
    with pytest.raises(TemplateRefusal, match="join turns of one role") as refused:
        prompt_text(tokenizer, [SYSTEM, *ASKED, *ASKED])
    assert "join_system" not in str(refused.value)


def test_gemma_takes_a_system_message_where_it_is_joined() -> None:
    with pytest.raises(TemplateRefusal, match="System role not supported"):
        prompt_text(tokenizer_with(of_trl("gemma")), [SYSTEM, *ASKED])
    joined = prompt_text(set_up(of_trl("gemma"), join_system=True), [SYSTEM, *ASKED])
    assert joined.endswith("<start_of_turn>user\nBe brief.\n\n2 + 3?<end_of_turn>\n<start_of_turn>model\n")


@pytest.mark.parametrize("name", ["idefics3", "llava_next", "smolvlm"])
def test_a_template_that_takes_no_plain_text_is_refused(name: str) -> None:
    """It goes through the letters of a text as if they were parts, and writes none of them."""
    with pytest.raises(TemplateRefusal, match="does not write the question '2 \\+ 3\\?' of the turns user"):
        prompt_text(tokenizer_with(of_trl(name)), ASKED)


def test_a_template_that_drops_an_earlier_question_is_refused() -> None:
    last_alone = tokenizer_with("{{ messages[-1].content }}")
    assert prompt_text(last_alone, ASKED) == "2 + 3?"
    with pytest.raises(TemplateRefusal, match="does not write the question '2 \\+ 3\\?'"):
        prompt_text(last_alone, [*ASKED, {"role": "assistant", "content": "5"}, {"role": "user", "content": "Sure?"}])


def test_white_space_that_a_template_trims_is_no_lost_question() -> None:
    assert (
        prompt_text(tokenizer_with(STRICT), [{"role": "user", "content": "  2 + 3?\n"}])
        == "[user] 2 + 3?<|eot|>\n[assistant] "
    )


def test_a_switch_that_a_template_takes_out_is_no_lost_question() -> None:
    switching = CHATML.replace("{{ message.content }}", "{{ message.content | replace('/no_think', '') }}")
    prompt_text(tokenizer_with(switching), [{"role": "user", "content": "2 + 3? /no_think"}])


def test_a_conversation_that_is_refused_is_none() -> None:
    tokenizer = tokenizer_with(STRICT)
    assert try_conversation_text(tokenizer, ASKED, "") is None
    assert try_conversation_text(tokenizer, ASKED, "5") == "[user] 2 + 3?<|eot|>\n[assistant] 5<|eot|>\n"
    assert "7" not in conversation_text(tokenizer_with(STRIPPING), ASKED, "<think>7</think>5")


def test_the_shape_names_roles_and_empty_turns() -> None:
    assert shape([SYSTEM, {"role": "user", "content": "\n"}]) == "the turns system, user (empty)"


# ---- templates that do not come to an end ---------------------------------------------------------------------------

LOOPS = "{% for a in range(N) %}{% for b in range(N) %}{% endfor %}{% endfor %}{{ messages[-1].content }}"


@pytest.fixture
def few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "MAX_LINES", 500)
    monkeypatch.setattr(chat_template, "_within", {})


@pytest.mark.parametrize(
    "template",
    [
        LOOPS.replace("N", "30"),
        "{% macro go(n) %}{% for i in range(n) %}{{ go(n - 1) }}{% endfor %}{% endmacro %}{{ go(6) }}{{ messages[-1].content }}",
        "{% for c in messages[-1].content %}{% for d in messages[-1].content * 90 %}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_that_runs_through_too_many_lines_is_stopped(template: str, few_lines: None) -> None:
    with pytest.raises(TemplateRefusal, match="the turns user: it does not come to an end within 500 lines"):
        prompt_text(tokenizer_with(template), ASKED)
    assert sys.gettrace() is None


def test_the_lines_of_a_template_are_counted_again_for_longer_messages_alone(few_lines: None) -> None:
    """Counting takes several times as long as rendering."""
    by_letter = tokenizer_with(
        "{% for c in messages[-1].content %}{% for d in messages[-1].content %}{% endfor %}{% endfor %}{{ messages[-1].content }}"
    )
    for length in (4, 8, 6):
        assert prompt_text(by_letter, [{"role": "user", "content": "a" * length}]) == "a" * length
    assert list(chat_template._within.values()) == [4]
    with pytest.raises(TemplateRefusal, match="within 500 lines"):
        prompt_text(by_letter, [{"role": "user", "content": "a" * 100}])
    prompt_text(tokenizer_with(LOOPS.replace("N", "3")), ASKED)
