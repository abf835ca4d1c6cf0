"""Reward functions of TRL and verl are called as these libraries call them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trl import GRPOTrainer
from trl.rewards import accuracy_reward, get_soft_overlong_punishment, think_format_reward

from configs.errors import ConfigError, RewardError
from configs.records import Completion, Problem
from configs.schema.rewards import PythonRewardConfig
from reward_training.reward import Unscored
from reward_training.rewards.python_forms import form_of, verl_arguments
from reward_training.rewards.python_function import PythonReward
from reward_training.scorer import build_rewards, score

Make = Callable[..., Completion]
MakeProblem = Callable[..., Problem]

MODULE = """
import asyncio
from trl.rewards import get_soft_overlong_punishment

overlong = get_soft_overlong_punishment(max_completion_len=10, soft_punish_cache=4)
seen = []
loops = set()

def keeps_arguments(prompts, completions, **kwargs):
    seen.append({"prompts": prompts, "completions": completions, **kwargs})
    return [1.0] * len(prompts)

def two_columns(completions, answer, level):
    return [float(a in c) * n for c, a, n in zip(completions, answer, level)]

def sometimes(completions, **kwargs):
    return [None if c == "?" else 0.5 for c in completions]

async def slowly(completions, answer, **kwargs):
    loops.add(asyncio.get_running_loop())
    await asyncio.sleep(0)
    return [float(c == a) for c, a in zip(completions, answer)]

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    seen.append((data_source, solution_str, ground_truth, extra_info))
    return float(solution_str == ground_truth)

def with_details(solution_str, ground_truth, method="strict"):
    return {"score": 0.25 if method == "strict" else 0.0, "acc": True}

def without_score(solution_str, ground_truth):
    return {"acc": True}

async def judged(data_source, solution_str, ground_truth, extra_info):
    loops.add(asyncio.get_running_loop())
    return {"score": float(solution_str == ground_truth)}

def other(texts, golds):
    return []

def wants_trainer(completions, trainer_state):
    return []

def wants_tokenizer(solution_str, ground_truth, tokenizer):
    return 0.0
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "rewards_of_form_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import rewards_of_form_test  # type: ignore[import-not-found]

    rewards_of_form_test.seen.clear()
    rewards_of_form_test.loops.clear()
    return rewards_of_form_test


def values(name: str, problems: list[Problem], completions: list[Completion]) -> list[Any]:
    function = name if ":" in name else f"rewards_of_form_test:{name}"
    with closing(PythonReward(PythonRewardConfig(name="mine", function=function))) as reward:
        return list(reward(problems, completions))


CHAT = [{"role": "user", "content": "What is 2 + 3?"}]


def test_trls_own_rewards_run_as_they_are(make_problem: MakeProblem, make_completion: Make, module: Any) -> None:
    problems = [make_problem(prompt=CHAT, answer="$5$")] * 3
    texts = ["<think>hm</think> \\boxed{5}", "\\boxed{6}", "no idea"]
    completions = [make_completion(text, num_tokens=n) for text, n in zip(texts, (6, 8, 11), strict=True)]
    assert values("trl.rewards:accuracy_reward", problems, completions) == [1.0, 0.0, 0.0]
    assert values("trl.rewards:think_format_reward", problems, completions) == [1.0, 0.0, 0.0]
    assert values("overlong", problems, completions) == [0.0, -0.5, -1.0]  # (10 - 4 - 8) / 4
    unparseable = [make_problem(prompt=CHAT, answer="")]
    assert values("trl.rewards:accuracy_reward", unparseable, completions[:1]) == [
        Unscored("the function returned None")
    ]


class Stop(Exception):
    pass


@pytest.mark.parametrize("prompt", ["2 + 3 = ", CHAT])
def test_arguments_are_those_of_trls_trainer(
    prompt: Any, make_problem: MakeProblem, make_completion: Make, module: Any
) -> None:
    """The trainer's method itself calls a function with a data set of the same problems; what it adds is its own."""
    meta = {"level": 3, "tags": ["sum"]}
    problems = [make_problem(prompt=prompt, meta=meta), make_problem(prompt=prompt, answer="6", meta=meta)]
    completions = [make_completion("5"), make_completion("it is 6")]
    theirs: dict[str, Any] = {}

    def keeps(**kwargs: Any) -> list[float]:
        theirs.update(kwargs)
        raise Stop

    texts = [c.text if isinstance(prompt, str) else [{"role": "assistant", "content": c.text}] for c in completions]
    rows = [
        {"prompt": p.prompt, "answer": p.answer, "solution": p.answer, "source": p.source, **p.meta} for p in problems
    ]
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu", is_main_process=True), reward_funcs=[keeps], reward_processing_classes=[None],
        reward_func_names=["keeps"], environments=None, state=SimpleNamespace(global_step=0), _log_completion_extra=None, _log_metric=None,
        args=SimpleNamespace(report_to=[]),
    )  # fmt: skip
    with pytest.raises(Stop):
        GRPOTrainer._calculate_rewards(
            trainer, rows, [p.prompt for p in problems], texts, [c.token_ids for c in completions]
        )
    values("keeps_arguments", problems, completions)
    [ours] = module.seen
    assert theirs.keys() - ours.keys() == {"trainer_state", "log_extra", "log_metric"}
    assert {name: theirs[name] for name in ours} == ours


def test_a_function_may_name_the_columns_that_it_takes(
    make_problem: MakeProblem, make_completion: Make, module: Any
) -> None:
    problems = [make_problem(meta={"level": 2.0}), make_problem(meta={"level": 3.0, "tags": []})]
    assert values("two_columns", problems, [make_completion("so 5"), make_completion("6")]) == [2.0, 0.0]
    with pytest.raises(RewardError, match="needs level; the problems have the columns solution, answer, source"):
        values("two_columns", [make_problem()], [make_completion("5")])


def test_a_column_of_the_data_comes_before_the_gold_answer_of_that_name(
    make_problem: MakeProblem, make_completion: Make, module: Any
) -> None:
    values("keeps_arguments", [make_problem(meta={"solution": "2 + 3 = 5"})], [make_completion("5")])
    assert (module.seen[0]["solution"], module.seen[0]["answer"]) == (["2 + 3 = 5"], ["5"])


def test_none_is_unscored(make_problem: MakeProblem, make_completion: Make, module: Any) -> None:
    config = PythonRewardConfig(name="mine", function="rewards_of_form_test:sometimes")
    with build_rewards([config], {}) as rewards:
        scores = score([make_problem()] * 2, [make_completion("?"), make_completion("5")], rewards)
    assert [row.parts["mine"] for row in scores] == [None, 0.5]
    assert scores[0].unscored == {"mine": "the function returned None"}


def test_async_functions_are_awaited_in_one_loop(make_problem: MakeProblem, make_completion: Make, module: Any) -> None:
    async def inside_a_loop() -> list[Any]:
        return list(reward(problems, completions))

    problems, completions = [make_problem()] * 2, [make_completion("5"), make_completion("6")]
    for name in ("slowly", "judged"):
        module.loops.clear()
        config = PythonRewardConfig(name="mine", function=f"rewards_of_form_test:{name}")
        with closing(PythonReward(config)) as reward:
            assert list(reward(problems, completions)) == [1.0, 0.0]
            assert asyncio.run(inside_a_loop()) == [1.0, 0.0]
        assert len(module.loops) == 1


def test_a_function_of_verl_is_called_for_each_response(
    make_problem: MakeProblem, make_completion: Make, module: Any
) -> None:
    problems = [make_problem(prompt=CHAT, meta={"level": 3}), make_problem(answer="6", meta={"index": 7})]
    assert values("compute_score", problems, [make_completion("5"), make_completion("5")]) == [1.0, 0.0]
    assert module.seen == [
        ("test", "5", "5", {"question": "What is 2 + 3?", "index": "p", "split": "train", "level": 3}),
        ("test", "5", "6", {"question": "2 + 3 = ?", "index": 7, "split": "train"}),
    ]
    assert values("with_details", problems, [make_completion("5")] * 2) == [0.25, 0.25]
    with pytest.raises(RewardError, match=r"returned a dict without score; it has \['acc'\]"):
        values("without_score", problems[:1], [make_completion("5")])


def test_the_parameters_tell_the_form(module: Any) -> None:
    trl = accuracy_reward, think_format_reward, get_soft_overlong_punishment(10, 4), module.slowly
    assert [form_of(function, "m:f") for function in trl] == ["trl"] * 4
    assert [form_of(f, "m:f") for f in (module.compute_score, module.with_details, module.judged)] == ["verl"] * 3
    assert form_of(lambda problems, completions: [], "m:f") == "regroup"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "other",
            r"parameters \(texts, golds\) are none .*\(problems, completions\) of regroup; .* of trl; .* of verl",
        ),
        ("wants_trainer", "needs trainer_state, which Regroup does not pass"),
        ("wants_tokenizer", "needs tokenizer, which Regroup does not pass"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_before_it_is(name: str, message: str, module: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        PythonReward(PythonRewardConfig(name="mine", function=f"rewards_of_form_test:{name}"))


def test_entry_of_a_family_is_as_the_library_made_it(
    make_problem: MakeProblem, make_completion: Make, module: Any
) -> None:
    """A function passes it on to the family's scorer, which compares with tuples."""
    asked = make_problem(meta={"family": "f", "entry": {"answer": "5", "metadata": {"board": {"$tuple": [1, 2]}}}})
    values("keeps_arguments", [asked], [make_completion("5")])
    assert module.seen[0]["entry"] == [{"answer": "5", "metadata": {"board": (1, 2)}}]
    assert verl_arguments(asked, make_completion("5"))["extra_info"]["entry"]["metadata"] == {"board": (1, 2)}
