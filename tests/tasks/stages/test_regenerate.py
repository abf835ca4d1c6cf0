import json
from pathlib import Path

from configs.disk.files import digest, write_jsonl
from configs.reader import load_config
from configs.records import Completion, Policy, Problem, Score
from tasks.stages.regenerate import RegenerateSpec, _metrics, by_source, verdicts
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


def test_the_files_of_a_preference_labeler_are_inputs(tmp_path: Path) -> None:
    parts = [tmp_path / f"part_{i}.jsonl" for i in range(2)]
    for i, part in enumerate(parts):
        part.write_text(f"{i}\n")

    def inputs(path: str | list[str]) -> dict[str, str]:
        labeler = json.dumps({"kind": "file", "path": path})
        config = load_config(TINY, [f"reward_models.taste.labeler={labeler}"])
        (tmp_path / "problems.jsonl").touch()
        problems = str(tmp_path / "problems.jsonl")
        spec = RegenerateSpec(config=config, round=0, policies=[], problems=problems, reward_models={})
        return {name: value for name, value in spec.inputs().items() if name.startswith("preferences")}

    one = inputs(str(parts[0]))
    assert one == {"preferences/taste": digest(parts[0])}
    both = inputs([str(part) for part in parts])
    assert both == inputs(str(tmp_path / "part_*.jsonl"))
    assert both != one
    parts[1].write_text("changed\n")
    assert inputs(str(tmp_path / "part_*.jsonl")) != both
    assert inputs("owner/name") == inputs(str(tmp_path)) == {}


def test_completions_at_fault_are_counted() -> None:
    config = load_config(TINY)
    spec = RegenerateSpec(config=config, round=0, policies=[], problems="", reward_models={})
    scores = [Score(parts={"digits": 0.0}, total=0.0), Score(parts={"digits": 0.0}, faults={"digits": "x"}, total=0.0)]
    metrics = _metrics(spec, [completion("a", "mine")] * 2, scores, [])
    assert (metrics["regenerate/digits/at_fault_share"], metrics["regenerate/digits/mean"]) == (0.5, 0.0)


def test_verdicts_are_those_on_one_policys_scored_responses_by_problem(tmp_path: Path) -> None:
    sources = {"a": "sums", "b": "sums", "c": "gcd"}
    problems = [Problem(key=key, prompt="?", answer="1", source=source, split="x") for key, source in sources.items()]
    write_jsonl(tmp_path / "shard.jsonl", problems)
    rows = [("a", "mine", 1.0), ("a", "mine", 0.5), ("b", "mine", 1.0), ("b", "mine", None), ("c", "mine", 0.0)]
    rows += [("c", "other", 1.0)]
    write_jsonl(tmp_path / "completions.jsonl", [completion(key, writer) for key, writer, _ in rows])
    write_jsonl(tmp_path / "scores.jsonl", [Score(parts={"correct": value}, total=0.0) for _, _, value in rows])
    mine = Policy(path="p", id="mine", round=0)
    found = verdicts(tmp_path, tmp_path / "shard.jsonl", policy=mine, checker_of=lambda source: "correct")
    # a: right and half right, b: right and unscored
    assert found == list(zip(problems, [[True, False], [True], [False]], strict=True))
    assert by_source(found) == {"sums": 2 / 3, "gcd": 0.0}
    assert verdicts(tmp_path, tmp_path / "shard.jsonl", policy=mine, checker_of=lambda source: "judge") == []
