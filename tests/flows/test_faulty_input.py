"""Configurations and data at fault: each ends 2 with a message that names the remedy, and without a traceback."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import main

ROWS = [{"question": f"Say {i}", "answer": str(i)} for i in range(90)]
DATA = "".join(json.dumps(row) + "\n" for row in ROWS)
BASE: dict[str, Any] = {
    "rounds": 1,
    "policy": {"path": "builtin:tiny"},
    "problems": {"sources": [{"kind": "jsonl", "path": "data.jsonl"}], "dev": 8, "test": 8},
    "rewards": [{"name": "right", "kind": "outcome"}],
    "grpo_config": {"group_size": 4, "batch_size": 16, "max_response_length": 8},
    "regeneration": {"num_problems": 8},
}


def _family(family: str = "chain_sum", **options: Any) -> list[dict[str, Any]]:
    return [{"kind": "reasoning_gym", "family": family, "size": 90, "options": options}]


def _jsonl(path: str = "data.jsonl", **fields: Any) -> dict[str, Any]:
    return {"kind": "jsonl", "path": path, **fields}


@dataclass(frozen=True)
class Fault:
    """What is wrong, and words of the message that it must give."""

    name: str
    words: tuple[str, ...]
    config: dict[str, Any] | bytes = field(default_factory=dict)
    """fields by dotted path that replace those of BASE; or the bytes of the whole file"""
    files: dict[str, bytes] = field(default_factory=dict)


CONFIGURATIONS = [
    Fault("unknown key", ("sed: unknown key", "docs/configuration.md"), {"sed": 1}),
    Fault("unknown nested key", ("grpo_config.groups: unknown key",), {"grpo_config.groups": 8}),
    Fault("missing block", ("policy: missing",), b"rewards: []\n"),
    Fault("wrong type", ("seed", "valid integer", "'one'"), {"seed": "one"}),
    Fault("no rounds", ("rounds", "greater than or equal to 1"), {"rounds": 0}),
    Fault("group of one", ("group_size=1", "use group_size >= 2"), {"grpo_config.group_size": 1}),
    Fault("batch of parts of groups", ("no multiple of group_size=4", "use 16"), {"grpo_config.batch_size": 15}),
    Fault("temperature 0", ("grpo_config.temperature", "greater than 0"), {"grpo_config.temperature": 0}),
    Fault("weight that is no number", ("weight", "finite number"), {"rewards.0.weight": float("nan")}),
    Fault("unknown reward kind", ("rewards.0", "'outcome', 'format', 'length'"), {"rewards.0.kind": "nice"}),
    Fault("reward twice", ("['right'] stand more than once", "unique"), {"rewards": BASE["rewards"] * 2}),
    Fault(
        "unknown reward model",
        ("name reward models ['taste']", "reward_models has []"),
        {"rewards.1": {"name": "taste", "kind": "reward_model", "model": "taste"}},
    ),
    Fault(
        "idle reward model",
        ("['taste'] are used by no reward", "add a reward of kind reward_model"),
        {"reward_models": {"taste": {"kind": "trained", "labeler": {"kind": "score"}}}},
    ),
    Fault(
        "bad pattern of a format",
        ("is no regular expression",),
        {"rewards.1": {"name": "form", "kind": "format", "pattern": "(("}},
    ),
    Fault("template without the question", ("write {question}",), {"problems.template": "Q:"}),
    Fault("checker that is no reward", ("is no reward; rewards are ['right']",), {"evaluation.checker": "wrong"}),
    Fault("broken YAML", ("is no YAML", "line"), b"rounds: [1\npolicy: {\n"),
    Fault("binary YAML", ("is not text", "name a YAML file"), b"\x80\x00\xff"),
    Fault("YAML that is a list", ("holds list, not a mapping", "configs/tiny.yaml"), b"- 1\n"),
    Fault("key twice", ("the key 'lr' stands twice, first in line 2", "line 3, column 3"), b"a:\n  lr: 1\n  lr: 2\n"),
    Fault(
        "half a character in YAML", ("'Be \\ud83d' holds '\\ud83d'", "line 1"), b'problems: {system: "Be \\ud83d"}\n'
    ),
    Fault("YAML in many brackets", ("nested in more than 50", "line 1, column"), b"a: " + b"[" * 700 + b"]" * 700),
    Fault("empty YAML", ("not a mapping", "configs/tiny.yaml"), b""),
]

DATA_AND_MODELS = [
    Fault(
        "missing model", ("models/none", "give a folder with safetensors, a hub id"), {"policy.path": "./models/none"}
    ),
    Fault(
        "unknown built-in model",
        ("the built-in models are builtin:tiny, builtin:tiny_vllm",),
        {"policy.path": "builtin:big"},
    ),
    Fault("hub id that is not there", ("check the id and the network",), {"policy.path": "nobody/nothing"}),
    Fault("folder without a model", ("save_pretrained",), {"policy.path": "folder"}, {"folder/a.txt": b"x"}),
    Fault(
        "missing file",
        ("none.jsonl does not exist", "set problems.sources.path"),
        {"problems.sources": [_jsonl("none.jsonl")]},
    ),
    Fault("empty file", ("data.jsonl is empty", "needs a row a problem"), files={"data.jsonl": b""}),
    Fault("broken JSON", ("line 91: broken JSON", "mend the line"), files={"data.jsonl": DATA.encode() + b'{"a": \n'}),
    Fault(
        "many brackets",
        ("line 91: values are nested in more than 100",),
        files={"data.jsonl": DATA.encode() + b'{"question": ' + b"[" * 400 + b"]" * 400 + b', "answer": "1"}\n'},
    ),
    Fault(
        "answers that are no numbers",
        ("90 of 90 rows cannot be read", "line 1: the answer is inf"),
        files={"data.jsonl": b"".join(b'{"question": "Say %d", "answer": 1e999}\n' % i for i in range(90))},
    ),
    Fault(
        "questions with their answer",
        ("ends with its own answer in 90 of 90", "columns.question"),
        files={
            "data.jsonl": "".join(
                json.dumps(r | {"question": f"Say\nAnswer: {r['answer']}"}) + "\n" for r in ROWS
            ).encode()
        },
    ),
    Fault(
        "most prompts too long",
        ("80 of 90", "raise it"),
        {"problems.max_prompt_length": 60},
        {
            "data.jsonl": "".join(
                json.dumps(r | {"question": r["question"] + "!" * 60 * (i > 9)}) + "\n" for i, r in enumerate(ROWS)
            ).encode()
        },
    ),
    Fault("binary file", ("is not text", "name a JSONL file"), files={"data.jsonl": b"\x80\x00"}),
    Fault(
        "missing column",
        ("no column 'problem'", "set columns.question to one of 'answer', 'question'"),
        {"problems.sources": [_jsonl(columns={"question": "problem"})]},
    ),
    Fault(
        "bad answer pattern",
        ("answer_pattern='(('", "is no regular expression"),
        {"problems.sources": [_jsonl(answer_pattern="((")]},
    ),
    Fault(
        "answer pattern that is nowhere",
        ("missing in 90 of 90 answers", "mend the pattern"),
        {"problems.sources": [_jsonl(answer_pattern="#### (.*)")]},
    ),
    Fault(
        "data set that is not there",
        ("could not be loaded", "use a local folder"),
        {"problems.sources": [{"kind": "dataset", "path": "nobody/nothing"}]},
    ),
    Fault(
        "unknown family",
        ("no family 'chain_summ'", "did you mean chain_sum"),
        {"problems.sources": _family("chain_summ")},
    ),
    Fault("unknown option", ("['terms']", "its options are", "max_terms"), {"problems.sources": _family(terms=2)}),
    Fault("option out of range", ("refuses options",), {"problems.sources": _family(min_terms=5, max_terms=2)}),
    Fault("dev larger than the data", ("problems.dev=500", "lower it, or add problems"), {"problems.dev": 500}),
    Fault("shards larger than the data", ("lower regeneration.num_problems",), {"regeneration.num_problems": 40}),
    Fault("batch larger than the data", ("lower grpo_config.batch_size",), {"grpo_config.batch_size": 4000}),
    Fault("prompts all too long", ("max_prompt_length=3 drops all 90", "raise it"), {"problems.max_prompt_length": 3}),
    Fault(
        "overlapping splits",
        ("problems overlap", "problems.overlap.action=drop"),
        {
            "problems.sources": [_jsonl(), _jsonl("test.jsonl", split="test")],
            "problems.overlap": {"action": "refuse"},
        },
        {"test.jsonl": b'{"question": "say  7", "answer": "7"}\n{"question": "Say 8", "answer": "8"}\n'},
    ),
    Fault(
        "unknown module",
        ("cannot import 'no_such_module'", "imports from the current folder"),
        {"rewards.1": {"name": "mine", "kind": "python", "function": "no_such_module:reward"}},
    ),
    Fault(
        "unknown function",
        ("has no function 'none'", "it has ['reward']"),
        {"rewards.1": {"name": "mine", "kind": "python", "function": "faulty_rewards:none"}},
        {"faulty_rewards.py": b"def reward(problems, completions):\n    return [0.0] * len(completions)\n"},
    ),
    Fault(
        "function of no known form",
        ("(texts, golds) are none of the known forms", "see docs/choosing.md, A function"),
        {"rewards.1": {"name": "mine", "kind": "python", "function": "formless_rewards:reward"}},
        {"formless_rewards.py": b"def reward(texts, golds):\n    return [0.0] * len(texts)\n"},
    ),
    Fault(
        "gold answers without numbers",
        ("fail, for instance 'yes'", "change either"),
        files={"data.jsonl": DATA.replace('"answer": "', '"answer": "yes", "number": "').encode()},
    ),
    Fault("unknown promotion metric", ("is not measured", "use one of greedy_accuracy"), {"promotion.metric": "acc"}),
    Fault(
        "more pairs wanted than there can be",
        ("min_pairs=50", "raise regeneration.num_problems"),
        {
            "rewards.1": {"name": "taste", "kind": "reward_model", "model": "taste"},
            "reward_models": {"taste": {"kind": "trained", "labeler": {"kind": "score"}}},
        },
    ),
]


def _changed(changes: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(BASE))
    for path, value in changes.items():
        *parents, last = path.split(".")
        target: Any = config
        for part in parents:
            target = target[int(part)] if part.isdigit() else target.setdefault(part, {})
        if isinstance(target, list):
            target[int(last) : int(last) + 1] = [value]
        else:
            target[last] = value
    return config


@pytest.fixture
def at_fault(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Fault, str], str]:
    """Runs a command on a fault and returns what it said on standard error."""
    monkeypatch.syspath_prepend(str(workspace))

    def run(fault: Fault, command: str) -> str:
        for name, content in ({"data.jsonl": DATA.encode()} | fault.files).items():
            (workspace / name).parent.mkdir(exist_ok=True)
            (workspace / name).write_bytes(content)
        is_file = isinstance(fault.config, bytes)
        content = fault.config if is_file else yaml.safe_dump(_changed(fault.config)).encode()
        Path("config.yaml").write_bytes(content)
        assert main([command, "config.yaml"]) == 2
        return capsys.readouterr().err

    return run


def _says(err: str, words: tuple[str, ...]) -> None:
    assert "Traceback" not in err
    assert [word for word in words if word not in err] == [], err


@pytest.mark.parametrize("fault", CONFIGURATIONS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("command", ["run", "doctor"])
def test_faulty_configuration_ends_with_the_remedy(
    command: str, fault: Fault, at_fault: Callable[[Fault, str], str]
) -> None:
    _says(at_fault(fault, command), fault.words)


@pytest.mark.parametrize("fault", DATA_AND_MODELS, ids=lambda fault: fault.name)
def test_faulty_data_or_model_ends_with_the_remedy(fault: Fault, at_fault: Callable[[Fault, str], str]) -> None:
    _says(at_fault(fault, "doctor"), fault.words)


def test_missing_configuration_ends_with_the_remedy(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "none.yaml"]) == 2
    _says(capsys.readouterr().err, ("none.yaml does not exist", "presets are in configs/"))


@pytest.mark.parametrize("override", ["seed", "rewards.7.name=x", "policy.path.x=1", "seed=[", "roundz=1"])
def test_faulty_override_ends_with_its_name(override: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text(yaml.safe_dump(BASE))
    assert main(["run", "config.yaml", "--set", override]) == 2
    _says(capsys.readouterr().err, (override.partition("=")[0],))


def test_base_configuration_of_these_tests_is_sound(workspace: Path) -> None:
    """Each fault above is then the only one."""
    Path("config.yaml").write_text(yaml.safe_dump(BASE))
    Path("data.jsonl").write_text(DATA)
    assert main(["doctor", "config.yaml"]) == 0
