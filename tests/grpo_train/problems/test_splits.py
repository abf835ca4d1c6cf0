import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from configs.errors import ConfigError
from configs.records import Problem
from configs.schema.config import RegenerationConfig
from configs.schema.problems import ProblemsConfig
from grpo_train.policies.tiny_model import build_tiny_tokenizer
from grpo_train.problems import splits
from grpo_train.problems.left_out import missing
from grpo_train.problems.sources import read_source
from grpo_train.problems.splits import ProblemSet, build_prompt, load_problems, shard_name
from reward_training.transformer import rendering

Write = Callable[..., dict[str, Any]]
CHAIN_SUM = {
    "kind": "reasoning_gym",
    "family": "chain_sum",
    "options": {"min_terms": 2, "max_terms": 2, "max_digits": 2},
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tiny_tokenizer()


@pytest.fixture
def write(workspace: Path) -> Write:
    """Writes rows as a JSONL file; returns its source block."""

    def write_rows(name: str, rows: list[Any], **source: Any) -> dict[str, Any]:
        (workspace / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"kind": "jsonl", "path": name, **source}

    return write_rows


def _rows(start: int, stop: int) -> list[dict[str, str]]:
    return [{"question": f"Say {i}", "answer": str(i)} for i in range(start, stop)]


def _load(
    tokenizer: PreTrainedTokenizerFast, sources: list[Any], *, seed: int = 0, num_problems: int = 2, **config: Any
) -> ProblemSet:
    problems = ProblemsConfig.model_validate({"sources": sources, "dev": 3, "test": 4} | config)
    return load_problems(
        problems, RegenerationConfig(num_problems=num_problems), rounds=2, seed=seed, tokenizer=tokenizer
    )


def _questions(problems: list[Problem]) -> set[str]:
    return {str(problem.prompt[-1]["content"]) for problem in problems if not isinstance(problem.prompt, str)}


# ---- splits ---------------------------------------------------------------------------------------------------------


def test_splits_hold_every_problem_once(write: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    found = _load(tokenizer, [write("a.jsonl", _rows(0, 30))])
    sizes = {name: len(problems) for name, problems in found.by_split.items()}
    # 30 - 4 test - 3 dev - 3 shards of 2 = 17
    assert sizes == {"dev": 3, "test": 4, "train": 17, "regenerate_000": 2, "regenerate_001": 2, "regenerate_002": 2}
    keys = [problem.key for problems in found.by_split.values() for problem in problems]
    assert len(keys) == len(set(keys)) == 30
    assert all(problem.split == name for name, problems in found.by_split.items() for problem in problems)
    assert shard_name(2) == "regenerate_002"


def test_each_gold_answer_is_read_once_and_prompts_are_encoded_together(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 40,000 problems was built twice and its prompt encoded alone, which took a minute."""
    counting, read = build_tiny_tokenizer(), []
    call = type(counting).__call__
    calls: list[int] = []

    def counted(self: Any, text: Any, **options: Any) -> Any:
        calls.append(len(text) if isinstance(text, list) else 1)
        return call(self, text, **options)

    monkeypatch.setattr(type(counting), "__call__", counted)
    monkeypatch.setattr(splits, "type_of", lambda gold: read.append(gold) or "number")
    _load(counting, [write("a.jsonl", _rows(0, 30))], templates=["Tell: {question}", "{question}"])
    assert calls == [90]  # 30 questions in 3 wordings
    assert sorted(read, key=int) == [str(i) for i in range(30)]


def test_the_longest_wording_decides_whether_a_problem_fits(write: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [*_rows(0, 30), {"question": "Say 30 " * 40, "answer": "30"}]
    source = write("a.jsonl", rows)
    assert _load(tokenizer, [source], templates=["{question}"], max_prompt_length=200).counts["overlong"] == 1
    with pytest.raises(ConfigError, match="drops all 31 problems"):
        _load(tokenizer, [source], templates=["{question}", "{question} " * 60], max_prompt_length=200)


def test_dev_and_test_depend_on_the_data_alone_and_the_shards_on_the_seed(
    write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = write("a.jsonl", _rows(0, 60))
    reversed_source = write("b.jsonl", _rows(0, 60)[::-1])
    first, second = _load(tokenizer, [source]), _load(tokenizer, [reversed_source], seed=1)
    for split in ("dev", "test"):
        assert [p.key for p in first.by_split[split]] == [p.key for p in second.by_split[split]]
    shards = [{p.key for p in found.by_split["regenerate_000"]} for found in (first, second)]
    assert shards[0] != shards[1]
    assert _load(tokenizer, [source]) == first


def test_raising_rounds_keeps_the_shards_so_far(write: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    source = write("a.jsonl", _rows(0, 30))
    problems = ProblemsConfig.model_validate({"sources": [source], "dev": 3, "test": 4})
    found = [
        load_problems(problems, RegenerationConfig(num_problems=2), rounds=rounds, seed=0, tokenizer=tokenizer).by_split
        for rounds in (1, 3)
    ]
    for name in ("regenerate_000", "regenerate_001"):
        assert found[0][name] == found[1][name]


def test_sources_with_a_split_go_there_whole(write: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    test = write("test.jsonl", _rows(100, 109), split="test")
    train = write("train.jsonl", _rows(200, 205), split="train")
    found = _load(tokenizer, [test, train, write("a.jsonl", _rows(0, 20))])
    assert _questions(found.by_split["test"]) == {f"Say {i}" for i in range(100, 109)}
    # 20 of the pool - 3 dev + 5 for training - 6 on shards = 16
    assert (len(found.by_split["dev"]), len(found.by_split["train"])) == (3, 16)
    held_out = _questions(found.by_split["dev"]) | _questions(found.by_split["test"])
    assert held_out.isdisjoint({f"Say {i}" for i in range(200, 205)})


def test_questions_that_stand_twice_are_counted_and_kept_once(write: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    doubled = [*_rows(0, 30), {"question": " Say 3\n", "answer": "3.0"}, *_rows(5, 7)]
    found = _load(tokenizer, [write("a.jsonl", doubled)])
    assert (found.counts["loaded"], found.counts["duplicates"]) == (33, 3)
    assert sum(len(problems) for problems in found.by_split.values()) == 30


def test_too_few_problems_for_the_shards_are_refused_with_the_numbers(
    write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    # 30 - 4 - 3 = 23 left, 3 shards of 8 take 24
    with pytest.raises(ConfigError, match=r"23 problems are left .* 3 regeneration shards of 8 take 24 .* lower"):
        _load(tokenizer, [write("a.jsonl", _rows(0, 30))], num_problems=8)


def test_dev_larger_than_the_data_is_refused(write: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError, match=r"problems\.dev=500 is more than the 26 problems left"):
        _load(tokenizer, [write("a.jsonl", _rows(0, 30))], dev=500)


# ---- overlap --------------------------------------------------------------------------------------------------------


def test_equal_question_on_both_sides_is_refused_or_dropped_and_counted(
    write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    test = write("test.jsonl", [*_rows(100, 105), {"question": "say 7", "answer": "7"}], split="test")
    train = write("train.jsonl", _rows(0, 20), split="train")
    dev = write("dev.jsonl", [*_rows(50, 53), {"question": "Say 104", "answer": "104"}], split="dev")
    own_dev = write("dev2.jsonl", _rows(50, 53), split="dev")
    with pytest.raises(ConfigError, match=r"1 training problems overlap dev or test \(1 equal.*action=drop"):
        _load(tokenizer, [test, train, own_dev], overlap={"action": "refuse"})
    with pytest.raises(ConfigError, match="1 dev problems overlap test"):
        _load(tokenizer, [test, train, dev], overlap={"action": "refuse"})
    found = _load(tokenizer, [test, train, dev])
    assert found.counts["overlap_exact"] == 2
    assert len(found.by_split["test"]) == 6
    assert len(found.by_split["dev"]) == 3
    # 20 - 1 dropped - 6 on shards
    assert len(found.by_split["train"]) == 13


def test_equal_question_of_a_procedural_family_and_a_file_is_found(
    write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    family = CHAIN_SUM | {"size": 40}
    question = read_source(ProblemsConfig.model_validate({"sources": [family]}).sources[0]).problems[0].text
    test = write("test.jsonl", [{"question": question, "answer": "0"}], split="test")
    found = _load(tokenizer, [family, test], overlap={"action": "drop"}, dev=1)
    assert found.counts["overlap_exact"] == 1


def test_shared_words_count_for_files_and_not_for_procedural_families(
    write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Each chain_sum question holds 'state the final answer to the following arithmetic problem', nine words."""
    same = "Ann walks to the shop and buys four green pears"
    test = write("test.jsonl", [{"question": f"{same}. Why?", "answer": "0"}], split="test")
    train = write("train.jsonl", [{"question": f"When {same}?", "answer": "1"}, *_rows(0, 20)], split="train")
    found = _load(tokenizer, [test, train, CHAIN_SUM | {"size": 40}], overlap={"action": "drop"})
    assert (found.counts["overlap_ngram"], found.counts["overlap_exact"]) == (1, 0)
    with pytest.raises(ConfigError, match=f"1 with 8 words in a row.*which share '{same.lower()}'"):
        _load(tokenizer, [test, train, CHAIN_SUM | {"size": 40}], overlap={"action": "refuse"})


def test_near_copies_are_left_out_and_questions_of_one_phrase_stay(
    write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    """GSM8K, MATH-500, SVAMP and MMLU were refused as they are, for the phrases that any such set has."""
    phrase = "How much money does she have left now"  # 8 words
    test = write(
        "test.jsonl", [{"question": f"Ann sold 4 of her 15 hats to 2 sailors. {phrase}?", "answer": "1"}], split="test"
    )
    rows = [
        {
            "question": f"In spring Bea planted 40 tulips, and 3 of them were eaten by a hungry goat. {phrase}?",
            "answer": "2",
        },
        {"question": f"Cleo sold 4 of her 15 hats to 2 sailors. {phrase}?", "answer": "3"},
    ]
    train = write("train.jsonl", [*rows, *_rows(0, 20)], split="train")
    dev = write("dev.jsonl", _rows(50, 53), split="dev")
    found = _load(tokenizer, [test, train, dev], overlap={"common_share": 1.0})
    assert (found.counts["overlap_ngram"], found.counts["overlap_exact"]) == (1, 0)
    kept = {problem.answer for problems in found.by_split.values() for problem in problems}
    assert "2" in kept
    assert len(found.by_split["train"]) == 22 - 1 - 6


def test_options_that_many_questions_have_are_no_overlap(write: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    options = {"options": ["true and true", "false and false", "true and false", "false and true"], "answer": 0}
    rows = [{"question": f"Say {i}", **options} for i in range(20)]
    columns = {"columns": {"options": "options"}}
    assert _load(tokenizer, [write("a.jsonl", rows, **columns)]).counts["overlap_ngram"] == 0
    stem = "Which colour has the sky over the sea on a sunny day"
    test = [{"question": f"{stem}?", **options}, *({"question": f"Say {i}", **options} for i in range(3))]
    train = [{"question": f"{stem}, then?", **options}, *rows[3:]]
    sources = [write(f"{name}.jsonl", kept, split=name, **columns) for name, kept in (("test", test), ("train", train))]
    dev = write("dev.jsonl", _rows(50, 53), split="dev")
    assert _load(tokenizer, [*sources, dev], overlap={"common_share": 1.0}).counts["overlap_ngram"] == 1


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_template_and_system_message_wrap_the_question() -> None:
    config = ProblemsConfig.model_validate(
        {"sources": [CHAIN_SUM | {"size": 1}], "template": "Q: {question} {x}", "system": "Be brief."}
    )
    assert build_prompt("2?", config, has_chat_template=True) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q: 2? {x}"},
    ]


def test_chat_question_keeps_its_turns_and_its_own_system_message() -> None:
    config = ProblemsConfig.model_validate(
        {"sources": [CHAIN_SUM | {"size": 1}], "template": "{question}!", "system": "Be brief."}
    )
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    wrapped = [*chat[:2], {"role": "user", "content": "c!"}]
    system = {"role": "system", "content": "Be brief."}
    assert build_prompt(chat, config, has_chat_template=True) == [system, *wrapped]
    own = {"role": "system", "content": "Own."}
    assert build_prompt([own, *chat], config, has_chat_template=True) == [own, *wrapped]


def test_model_without_a_chat_template_is_asked_in_plain_text() -> None:
    config = ProblemsConfig.model_validate({"sources": [CHAIN_SUM | {"size": 1}], "template": "Q: {question}\nA:"})
    assert build_prompt("2?", config, has_chat_template=False) == "Q: 2?\nA:"


def test_templates_give_training_problems_variants_and_the_others_the_plain_prompt(
    write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = write("a.jsonl", _rows(10, 40))
    found = _load(tokenizer, [source], template="Q: {question}", templates=["{question}?", "Now {question}"])
    for split, problems in found.by_split.items():
        for problem in problems:
            said = problem.answer
            texts = [variant[-1]["content"] for variant in problem.variants]
            assert problem.prompt[-1]["content"] == f"Q: Say {said}"
            assert texts == ([f"Say {said}?", f"Now Say {said}"] if split == "train" else [])


def test_a_prompt_that_is_overlong_in_one_wording_is_dropped(write: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    source = write("a.jsonl", [*_rows(10, 40), {"question": "Say 100", "answer": "100"}])
    # "Say 10?" is one token longer than the 25 of "Say 10"
    found = _load(tokenizer, [source], templates=["{question}?"], max_prompt_length=26)
    assert found.counts["overlong"] == 1


def test_overlong_prompts_are_dropped_and_counted(write: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [*_rows(10, 40), {"question": "x" * 50, "answer": "1"}]
    # <|im_start|> user \n Say 10 <|im_end|> \n <|im_start|> assistant \n = 1+4+1+6+1+1+1+9+1 = 25 tokens
    found = _load(tokenizer, [write("a.jsonl", rows)], max_prompt_length=25)
    assert found.counts["overlong"] == 1
    with pytest.raises(ConfigError, match=r"max_prompt_length=24 drops all 31 problems; the shortest prompt has 25"):
        _load(tokenizer, [write("a.jsonl", rows)], max_prompt_length=24)


# ---- what is left out -----------------------------------------------------------------------------------------------


def test_questions_that_differ_in_case_a_power_or_white_space_are_different(
    write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    """They were dropped as equal: NFKC makes 22 of a power of two, and indentation was one space."""
    pairs = [("2²?", "4"), ("22?", "22"), ("Is aB right?", "no"), ("Is Ab right?", "yes"), ("x₁½", "a"), ("x11⁄2", "b")]
    pairs += [("if a:\n  b\n  c", "2"), ("if a:\n  b\nc", "1")]
    rows = [*_rows(0, 30), *({"question": question, "answer": answer} for question, answer in pairs)]
    found = _load(tokenizer, [write("a.jsonl", rows)])
    left_out = ("duplicates", "contradicting", "overlap_exact")
    assert [found.counts[reason] for reason in left_out] == [0, 0, 0]
    assert sum(map(len, found.by_split.values())) == 38


def test_a_question_in_another_case_with_the_same_answer_is_a_copy_of_a_held_out_one(
    write: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    held_out = [{"question": f"SAY {i}", "answer": str(i + (i == 4))} for i in range(5)]  # the last has another answer
    found = _load(tokenizer, [write("a.jsonl", _rows(0, 30)), write("t.jsonl", held_out, split="test")])
    assert found.counts["overlap_exact"] == 4
    assert "Say 4" in {q for name, split in found.by_split.items() if name != "test" for q in _questions(split)}


@pytest.mark.parametrize(
    ("golds", "kept", "duplicates", "contradicting"),
    [
        (["1/2", "0.5", r"\frac{1}{2}"], "1/2", 2, 0),
        (["7", "8", "7.0"], "7", 1, 1),
        (["8", "7", "7"], "7", 1, 1),
        (["7", "8"], None, 0, 2),
        ([["New York", "NYC"], "NYC"], "New York", 1, 0),
    ],
)
def test_of_gold_answers_that_contradict_each_other_the_majority_stands(
    golds: list[Any],
    kept: str | None,
    duplicates: int,
    contradicting: int,
    write: Write,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """The first of them stood, whatever it was."""
    rows = [*_rows(0, 30), *({"question": "Which  one?", "answer": gold} for gold in golds)]
    found = _load(tokenizer, [write("a.jsonl", rows)])
    assert (found.counts["duplicates"], found.counts["contradicting"]) == (duplicates, contradicting)
    asked = [p.answer for split in found.by_split.values() for p in split if "Which  one?" in str(p.prompt)]
    assert asked == ([] if kept is None else [kept])
    assert ("contradicting" in found.examples) == (contradicting > 0)


def test_a_column_that_is_not_the_whole_question_is_refused(write: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"question": "Solve the task.", "answer": str(i)} for i in range(30)]
    with pytest.raises(ConfigError, match=r"a\.jsonl: 30 of 30 .* 'Solve the task\.' with '0'; .* columns\.question"):
        _load(tokenizer, [write("a.jsonl", rows)])


def test_most_prompts_of_a_source_too_long_is_refused(write: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    """Nine of ten were left out, and the check said ok."""
    rows = [{"question": "Say 7 " * n, "answer": "7"} for n in range(40, 50)]
    enough, most = write("a.jsonl", _rows(0, 30)), write("b.jsonl", [*_rows(30, 39), *rows])
    with pytest.raises(
        ConfigError, match=r"b\.jsonl: 10 of 19 .*max_prompt_length=200; raise it \(\d+ takes half of them"
    ):
        _load(tokenizer, [enough, most], max_prompt_length=200)
    half = write("b.jsonl", [*_rows(30, 40), *rows])
    assert _load(tokenizer, [enough, half], max_prompt_length=200).counts["overlong"] == 10


def test_what_the_template_does_not_write_and_what_is_not_asked_is_counted(write: Write) -> None:
    deaf = build_tiny_tokenizer()
    deaf.chat_template = "{% for m in messages if m.role != 'system' %}{{ m.content }}\n{% endfor %}"
    turns = [
        {"role": "system", "content": "Be brief."},
        {"from": "human", "value": "9 + 9?"},
        {"from": "gpt", "value": "18"},
    ]
    source = write("a.jsonl", [*_rows(0, 30), {"question": turns, "answer": "18"}])
    found = _load(deaf, [source])
    assert (found.counts["unwritten"], found.counts["cut"], found.counts["loaded"]) == (1, 1, 31)
    assert missing(found.counts, found.examples) == (
        "kept: 1 conversations without what the assistant answers at their end, 1 prompts with a message that the chat "
        "template does not write"
    )


def test_long_prompts_are_encoded_a_few_at_a_time(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of 10 MB took 4 GB: an encoding needs 400 bytes a token."""
    counting, sizes = build_tiny_tokenizer(), []
    call = type(counting).__call__

    def counted(self: Any, text: list[str], **options: Any) -> Any:
        sizes.append(sum(map(len, text)))
        return call(self, text, **options)

    monkeypatch.setattr(type(counting), "__call__", counted)
    monkeypatch.setattr(rendering, "CHARACTERS", 300)
    whole = _load(build_tiny_tokenizer(), [write("a.jsonl", _rows(0, 30))])
    assert max(sizes) <= 300 < sum(sizes)
    monkeypatch.setattr(rendering, "CHARACTERS", 10**6)
    assert _load(counting, [write("a.jsonl", _rows(0, 30))]) == whole
