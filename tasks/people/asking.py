"""Asks people about pairs of responses in a run, and collects their answers so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from configs.disk.files import read_jsonl, write_jsonl
from configs.records import ReviewItem
from configs.schema.reward_models import PeopleLabeler
from reward_training.pairs.review import label_items
from tasks.people.review_desk import ReviewDesk
from tasks.people.review_queue import MlflowReviewers
from tasks.running.run import Run
from tasks.runs.lineage import review_files
from tasks.runs.workspace import by_hand_folder


def desk_of(run: Run, told_to_go_on: Callable[[], bool] = lambda: False) -> ReviewDesk:
    """The workspace's review desk, which also takes in the answers that people give in MLflow."""
    pause = run.clock.pausing(time.sleep)
    return ReviewDesk(run.workspace, take_in=MlflowReviewers(run.tracking), told_to_go_on=told_to_go_on, sleep=pause)


def ask_people(run: Run, items: list[ReviewItem]) -> None:
    """Ask people about `items`, in the workspace and in MLflow; items that were asked before stay unchanged."""
    desk = desk_of(run)
    desk.ask(items)
    desk.answers(items)  # puts them into MLflow's review queue
    run.console.say(
        f"people are asked about {len(items)} pairs; they answer in MLflow's review queue or by `regroup review`"
    )


def labels_by_hand(run: Run, round_index: int, name: str) -> list[Path]:
    """File of the pairs from people's answers so far, newly written; no file if people do not label for `name`."""
    if not isinstance(run.config.trained_reward_models[name].labeler, PeopleLabeler):
        return []
    asked = [item for path in review_files(run.folder, before=round_index + 1) for item in read_jsonl(path, ReviewItem)]
    items = [item for item in asked if item.objective == name]
    path = by_hand_folder(run.folder, round_index, name).with_name(f"{name}_labels.jsonl")
    write_jsonl(path, label_items(items, desk_of(run).answers(items), stand_in=None))
    return [path]
