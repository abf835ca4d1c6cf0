"""Responses are decoded with the marks of thoughts, also where these are special tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from configs.records import Completion, Problem, Score
from configs.schema.grpo import EarlyStopConfig
from configs.schema.rewards import FormatRewardConfig
from grpo_train.policies.model import load_tokenizer
from grpo_train.policies.tiny_model import build_tiny_tokenizer
from grpo_train.sampling.decoding import Decoder, begun_response
from grpo_train.sampling.early_stop import EarlyStop
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.updating.step_advantages import token_steps
from reward_training.answers.finding.thoughts import answer_of
from reward_training.rewards.format import FormatReward
from reward_training.rewards.sought import texts_sought
from reward_training.transformer.loading.tokenizer import cleans_up
from tests.reward_training.conftest import completion

TEMPLATE = "{% for message in messages %}{{ message['content'] }}<|eos|>{% endfor %}{% if add_generation_prompt %}<|bot|>BEGUN{% endif %}"


def byte_level(special: list[str], plain: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Single bytes as tokens, as in the tokenizers of GPT-2, Llama 3 and Qwen, and added tokens, special and not."""
    core = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return with_added(core, special, plain)


def metaspace(special: list[str], plain: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Characters with the sign for a space before each word, as in the tokenizers of Llama 2 and Mistral."""
    letters = ["<unk>", *map(chr, range(33, 127)), "\u2581", "\n"]
    core = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, [], unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    core.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return with_added(core, special, plain)


def with_added(core: Tokenizer, special: list[str], plain: tuple[str, ...]) -> PreTrainedTokenizerFast:
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ["<|eos|>", *special]])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|eos|>", pad_token="<|eos|>")


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


BUILDERS = pytest.mark.parametrize("build", [byte_level, metaspace])
MISTRAL = ["[THINK]", "[/THINK]", "[INST]", "[/INST]"]


@pytest.mark.parametrize(
    ("build", "without_marks", "text"),
    [(byte_level, "hm 78 ", "[THINK]hm 7[/THINK]8 "), (metaspace, "hm 7 8 ", "[THINK] hm 7[/THINK] 8 ")],
)
def test_marks_that_are_special_tokens_stay_and_other_special_tokens_go(build, without_marks, text) -> None:
    """The closing mark was left out: `hm 7[/THINK]8` became `hm 78`, whose last number is 78."""
    tokenizer = build(MISTRAL)
    written = ids(tokenizer, "[THINK]hm 7[/THINK]8 [INST]<|eos|>")
    assert tokenizer.decode(written, skip_special_tokens=True) == without_marks
    assert Decoder(tokenizer)(written) == text
    assert answer_of(text).strip() == "8"


@BUILDERS
def test_marks_that_are_ordinary_tokens_stay_as_before(build) -> None:
    tokenizer = build(["<|bot|>"], ("<think>", "</think>"))
    written = ids(tokenizer, "<think>hm 7</think>8<|bot|><|eos|>")
    assert Decoder(tokenizer)(written) == tokenizer.decode(written, skip_special_tokens=True)
    assert answer_of(Decoder(tokenizer)(written)).strip() == "8"


@BUILDERS
@given(text=st.text(alphabet="ab 7.", max_size=12), ends=st.booleans())
def test_a_text_without_marks_is_what_the_tokenizer_decodes(build, text: str, ends: bool) -> None:
    tokenizer = build(MISTRAL)
    written = ids(tokenizer, text + "<|eos|>" * ends)
    assert Decoder(tokenizer)(written) == tokenizer.decode(written, skip_special_tokens=True)


def test_channels_of_gpt_oss_are_told_from_the_answer() -> None:
    tokenizer = byte_level(["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>"])
    written = "<|channel|>analysis<|message|>7?<|end|><|start|>assistant<|channel|>final<|message|>8"
    assert Decoder(tokenizer)(ids(tokenizer, written + "<|return|>")) == written
    assert answer_of(written) == "8"


def test_the_end_of_a_message_is_no_mark_without_channels_nor_where_it_ends_the_sequence() -> None:
    tokenizer = byte_level(["<|end|>", "<|user|>"])
    assert Decoder(tokenizer)(ids(tokenizer, "8<|end|><|user|>")) == "8"
    tokenizer = byte_level(["<|end|>", "<|channel|>", "<|message|>"])
    tokenizer.eos_token = "<|end|>"
    assert Decoder(tokenizer)(ids(tokenizer, "<|channel|>final<|message|>8<|end|>")) == "<|channel|>final<|message|>8"


def test_a_mark_of_other_letters_stays_in_a_byte_level_text() -> None:
    tokenizer = byte_level(["\u25c1think\u25b7", "\u25c1/think\u25b7"])
    written = "\u25c1think\u25b7\u00fc7\u25c1/think\u25b78"
    assert Decoder(tokenizer)(ids(tokenizer, written)) == written


# ---- what rewards look for ------------------------------------------------------------------------------------------

TAGS = ["<answer>", "</answer>", "<tool>"]


@BUILDERS
def test_tags_that_a_reward_looks_for_stay_and_its_value_is_that_of_the_text(build) -> None:
    """They were left out, so that the reward was 0 for ever, whatever the policy wrote."""
    tokenizer = build([*TAGS, "<think>", "</think>"])
    form = FormatRewardConfig(name="form", tags=["think", "answer"])
    written = ids(tokenizer, "<think>7?</think><answer>8</answer><tool><|eos|>")
    text = Decoder(tokenizer, texts_sought([form]))(written)
    assert text.replace(" ", "") == "<think>7?</think><answer>8</answer>"
    reward = FormatReward(form)
    assert [reward([problem("?")], [completion(each)]) for each in (text, Decoder(tokenizer)(written))] == [
        [1.0],
        [0.0],
    ]


def test_what_ends_a_response_is_left_out_though_a_reward_looks_for_it() -> None:
    tokenizer = byte_level(["<answer>", "<|im_end|>"])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    decode = Decoder(tokenizer, {"<answer>.*<|im_end|>", "<|eos|>"})
    assert decode(ids(tokenizer, "<answer>8<|im_end|>")) == "<answer>8"
    assert decode(ids(tokenizer, "<answer>8<|eos|>")) == "<answer>8"
    assert decode.dropped_of(["<|im_end|><|eos|>"]) == ["<|eos|>", "<|im_end|>"]
    assert decode.with_special(ids(tokenizer, "8<|im_end|>")) == "8<|im_end|>"


def test_a_sampled_response_keeps_what_is_sought(tiny) -> None:
    """Each token that the policy can write is special: the digits of the tiny model, for once."""
    model, _ = tiny
    tokenizer = build_tiny_tokenizer()
    digits = [AddedToken(digit, special=True, normalized=False) for digit in "0123456789"]
    tokenizer.add_special_tokens({"additional_special_tokens": digits}, replace_extra_special_tokens=False)
    asked = [problem([{"role": "user", "content": "2 + 3 ="}])]
    bare, kept = (
        sample(model, tokenizer, asked, Sampling(16, 1.0, 16, sought=sought), seed=0, policy_id="x")
        for sought in (frozenset(), frozenset({"7<|im_end|>"}))
    )
    assert [each.token_ids for each in bare] == [each.token_ids for each in kept]
    sevens = tokenizer.convert_tokens_to_ids("7")
    assert [each.text.count("7") for each in kept] == [each.token_ids.count(sevens) for each in kept]
    assert any("7" in each.text for each in kept)
    assert not any(digit in each.text for each in bare for digit in "0123456789")


# ---- white space ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["x != y", "a , b .", "is n't ?", "( 'm )", "do n't 've !"])
def test_text_is_decoded_as_it_was_written_whatever_the_tokenizer_cleans_up(text: str, tmp_path) -> None:
    """`x != y` reached the rewards as `x!= y`: the files of Llama 3 ask for it."""
    tokenizer = build_tiny_tokenizer()
    tokenizer.clean_up_tokenization_spaces = True
    written = ids(tokenizer, text)
    assert tokenizer.decode(written) != text
    assert Decoder(tokenizer)(written) == text
    assert Decoder(tokenizer).with_special(written) == text
    tokenizer.save_pretrained(tmp_path)
    assert cleans_up(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.decode(written) == text
    loaded.save_pretrained(tmp_path)
    assert not cleans_up(tmp_path)
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path).decode(written) == text


def test_steps_are_counted_in_tokens_of_the_text_with_its_marks() -> None:
    tokenizer = byte_level(["<think>", "</think>"])
    written = ids(tokenizer, "<think>ab\n</think>8<|eos|>")
    text = Decoder(tokenizer)(written)
    completion = Completion(
        problem_key="p", index=0, prompt_ids=[], token_ids=written, text=text, finish_reason="stop",
        logprobs=[0.0] * len(written), policy_id="x", step=0, seed=0,
    )  # fmt: skip
    score = Score(parts={"steps": 0.5}, total=0.5, steps=[(len("<think>ab"), 1.0), (len(text), 0.0)])
    assert token_steps(Decoder(tokenizer), completion, score) == [(3, 1.0), (6, 0.0)]  # <think> a b, \n </think> 8


@pytest.fixture
def thinking(tiny):
    """The tiny policy under a template that opens a thought at the end of the prompt."""
    model, tokenizer = tiny
    before = tokenizer.chat_template
    tokenizer.chat_template = TEMPLATE.replace("BEGUN", "<think>\n")
    yield model, tokenizer
    tokenizer.chat_template = before


def problem(prompt: object) -> Problem:
    return Problem(key=str(prompt), prompt=prompt, answer="5", source="test", split="train")


def test_what_the_prompt_begins_is_known_of_each_completion(thinking) -> None:
    model, tokenizer = thinking
    problems = [problem([{"role": "user", "content": "2 + 3 ="}]), problem("2 + 3 ="), problem("2 + 3 = <think>")]
    written = sample(model, tokenizer, problems, Sampling(2, 1.0, 4), seed=0, policy_id="x")
    assert [completion.begun for completion in written] == ["<think>\n"] * 2 + [""] * 2 + ["<think>"] * 2
    assert written[0].response == "<think>\n" + written[0].text
    assert begun_response(tokenizer, problems[0].prompt) == "<think>\n"


def test_a_draft_is_scored_with_what_the_prompt_began(thinking) -> None:
    _, tokenizer = thinking
    seen = []

    class Remembers:
        name, weight = "form", 1.0

        def __call__(self, problems, completions):
            seen.extend(completions)
            return FormatReward(FormatRewardConfig(name="form", pattern="<think>"))(problems, completions)

    class Draft:
        problem, index, token_ids, finish_reason = 0, 0, tokenizer("12")["input_ids"], "length"

    config = EarlyStopConfig.model_validate({"low_score": {"reward": "form", "below": 0.5, "every": 1}})
    stop = EarlyStop(config, [problem([{"role": "user", "content": "?"}])], tokenizer, 50, [Remembers()])
    assert stop.look([Draft()], [0]) == [0]  # the reward gives 1
    assert [draft.response for draft in seen] == ["<think>\n12"]
