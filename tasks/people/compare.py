"""The stage in which people compare champion and challenger: blind, side by side, in random order."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from configs.disk.files import digest, read_rows, write_json, write_jsonl
from configs.records import Policy, ReviewItem
from configs.schema.evaluation import PeopleConfig
from configs.seeds import rng_for
from grpo_train.measuring.promotion import win_rate
from reward_training.pairs.review import item_id, opinion
from tasks.people.asking import desk_of
from tasks.people.review_desk import ReviewDesk
from tasks.running.run import Run
from tasks.running.stage import Context, run_stage
from tasks.running.stage_spec import StageSpec
from tasks.runs.stage_files import COMPARISON, EXAMPLES, ITEMS, VERDICTS
from tasks.runs.workspace import round_folder
from tasks.showing.page import paused_for_people

SPLIT = "dev"
"""the split that promotion is decided on; test only reports"""


def compare(run: Run, round_index: int, champion: Policy, challenger: Policy) -> None:
    """Have people compare two policies of this run, blind, and wait for them as configured."""
    spec = CompareSpec(
        config=run.config,
        round=round_index,
        champion=champion,
        challenger=challenger,
        champion_examples=str(round_folder(run.folder, champion.round) / "evaluate" / EXAMPLES),
        challenger_examples=str(round_folder(run.folder, challenger.round) / "evaluate" / EXAMPLES),
    )
    with paused_for_people() as told_to_go_on:
        stage_dir = round_folder(run.folder, round_index) / "compare"
        run_stage(run, spec, stage_dir, partial(body, desk=desk_of(run, told_to_go_on)))


class CompareSpec(StageSpec):
    """Two policies and the files of their responses to the same problems."""

    champion: Policy
    challenger: Policy
    champion_examples: str
    challenger_examples: str

    def reads(self) -> tuple[str, ...]:
        return ("seed", "promotion")

    def inputs(self) -> dict[str, str]:
        return {
            "champion": self.champion.id,
            "challenger": self.challenger.id,
            "champion_examples": digest(Path(self.champion_examples)),
            "challenger_examples": digest(Path(self.challenger_examples)),
        }


def body(spec: CompareSpec, out_dir: Path, context: Context, *, desk: ReviewDesk) -> None:
    """Ask people and wait; write items.jsonl, verdicts.jsonl and comparison.json (the challenger's win rate)."""
    people = spec.config.promotion.people
    assert people is not None, "without it nobody compares"
    items = _items(spec, people)
    desk.ask(items)
    answers = desk.wait(items, minutes=people.wait_minutes, enough=None, context=context)
    opinions = [(item, opinion(answers[item.id])) for item in items if item.id in answers]
    leanings = [_for_challenger(item, spec, leaning) for item, leaning in opinions if leaning is not None]
    write_jsonl(out_dir / ITEMS, items)
    write_jsonl(out_dir / VERDICTS, [verdict for verdicts in answers.values() for verdict in verdicts])
    rate = win_rate(leanings)
    write_json(out_dir / COMPARISON, {"asked": len(items), "win_rate": rate.model_dump(mode="json") if rate else None})


def _items(spec: CompareSpec, people: PeopleConfig) -> list[ReviewItem]:
    """Items for the first `num_problems` example problems of dev, without those with equal greedy responses."""
    champion, challenger = _greedy(Path(spec.champion_examples)), _greedy(Path(spec.challenger_examples))
    rng = rng_for(spec.config.seed, "compare policies", round_index=spec.round)
    items = []
    for key in list(champion)[: people.num_problems]:
        texts, sources = [champion[key]["greedy"], challenger[key]["greedy"]], [spec.champion.id, spec.challenger.id]
        if texts[0] == texts[1]:
            continue
        if rng.integers(2):
            texts.reverse()
            sources.reverse()
        run_name = spec.config.run_name
        items.append(
            ReviewItem(
                id=item_id(run_name, spec.round, "policies", key, *texts),
                kind="policies",
                objective="policies",
                run=run_name,
                round=spec.round,
                problem_key=key,
                prompt=champion[key]["prompt"],
                first=texts[0],
                second=texts[1],
                sources=(sources[0], sources[1]),
                split=SPLIT,
            )
        )
    return items


def _greedy(examples: Path) -> dict[str, dict[str, Any]]:
    """{problem key: example} of dev."""
    return {row["problem_key"]: row for row in read_rows(examples) if row["split"] == SPLIT}


def _for_challenger(item: ReviewItem, spec: CompareSpec, leaning: float) -> float:
    """The opinion in [-1, 1], with 1 where all prefer the challenger."""
    return leaning if item.sources[0] == spec.challenger.id else -leaning
