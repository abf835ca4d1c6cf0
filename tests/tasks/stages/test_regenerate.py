from pathlib import Path

from configs.disk.files import write_jsonl
from configs.reader import load_config
from configs.records import Completion, Policy, Problem, Score
from tasks.stages.regenerate import RegenerateSpec, _metrics, pass_rates
from tests.paths import TINY


def completion(problem_key: str, policy_id: str) -> Completion:
    return Completion(
        problem_key=problem_key,
        index=0,
        prompt_ids=[1],
        token_ids=[2],
        text="x",
        finish_reason="stop",
        logprobs=[-1.0],
        policy_id=policy_id,
        step=0,
        seed=0,
    )


def test_completions_at_fault_are_counted() -> None:
    config = load_config(TINY)
    spec = RegenerateSpec(config=config, round=0, policies=[], problems="", reward_models={})
    scores = [Score(parts={"digits": 0.0}, total=0.0), Score(parts={"digits": 0.0}, faults={"digits": "x"}, total=0.0)]
    metrics = _metrics(spec, [completion("a", "mine")] * 2, scores, [])
    assert (metrics["regenerate/digits/at_fault_share"], metrics["regenerate/digits/mean"]) == (0.5, 0.0)


def test_pass_rates_are_those_of_one_policys_scored_responses_by_source(tmp_path: Path) -> None:
    sources = {"a": "sums", "b": "sums", "c": "gcd"}
    problems = [Problem(key=key, prompt="?", answer="1", source=source, split="x") for key, source in sources.items()]
    write_jsonl(tmp_path / "shard.jsonl", problems)
    rows = [("a", "mine", 1.0), ("a", "mine", 0.5), ("b", "mine", 1.0), ("b", "mine", None), ("c", "mine", 0.0)]
    rows += [("c", "other", 1.0)]
    write_jsonl(tmp_path / "completions.jsonl", [completion(key, writer) for key, writer, _ in rows])
    write_jsonl(tmp_path / "scores.jsonl", [Score(parts={"correct": value}, total=0.0) for _, _, value in rows])
    mine = Policy(path="p", id="mine", round=0)
    found = pass_rates(tmp_path, tmp_path / "shard.jsonl", policy=mine, checker="correct")
    # a: right and half right, b: right and unscored
    assert found == {"sums": 2 / 3, "gcd": 0.0}
    assert pass_rates(tmp_path, tmp_path / "shard.jsonl", policy=mine, checker="judge") == {}
