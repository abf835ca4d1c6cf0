"""Compares reward models that are retrained in each round with one that stays as after round 1, and policies that go on
from the champion with ones that begin anew from the given policy.

    python -m benchmarks.retrained_against_frozen [--seeds 0 1 2 3 4] [--show]

All arms share problems, given policy, first reward model, and numbers of samples and updates. The runs are ordinary
Regroup runs in build/experiments/retrained_against_frozen; those that are finished are not run again, so an interrupted
call can be continued, and two calls can share the seeds. Makes the tables and the plot of
docs/experiments/retrained_against_frozen.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.methods.sums import save_model, save_problems
from configs.disk.files import Journal

ROOT = Path(__file__).parents[1]
WORKSPACE = ROOT / "build" / "experiments" / "retrained_against_frozen"
CONFIG = ROOT / "docs" / "experiments" / "retrained_against_frozen.yaml"
QUESTIONS = [(a, b) for a in range(200) for b in range(100)]
POLICY_UPDATES, GRADER_UPDATES = 825, 1600
"""of training from scratch: the policy has 0.4 of the sums right, and what the reward model begins from nearly all"""


@dataclass(frozen=True)
class Arm:
    """One of the ways to go on after round 1."""

    colour: str
    is_frozen: bool = False
    from_given: bool = False
    line: str = "-"

    def overrides(self, first_reward_model: Path) -> list[str]:
        changes = []
        if self.is_frozen:
            changes.append("regeneration.group_size=2")  # as many problems, so that the same are left for training
            changes.append(f"reward_models.proxy={{kind: frozen, path: {first_reward_model}}}")
        if self.from_given:
            changes.append("policy.start_from=given")
        return changes


FIRST = "retrained, from the champion"
"""makes the reward model of round 1 that the frozen arms keep"""
CHECKER = "the checker instead, from the champion"
ARMS = {
    FIRST: Arm("#3d85c6"),
    "frozen, from the champion": Arm("#d9782d", is_frozen=True),
    "retrained, from the given policy": Arm("#3d85c6", from_given=True, line="--"),
    "frozen, from the given policy": Arm("#d9782d", is_frozen=True, from_given=True, line="--"),
}
MEASURES = {
    "greedy accuracy on test (checker)": "test/greedy_accuracy",
    "mean score of samples on test (the round's reward model)": "test/sampled/proxy",
    "KL from the given policy (nats a token)": "test/kl_initial",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--show", action="store_true", help="only what is there")
    arguments = parser.parse_args()
    if not arguments.show:
        make_laboratory()
        for seed in arguments.seeds:
            run_arms(seed)
    if len(arguments.seeds) < 2:
        return  # nothing to average
    found = {arm: [summary(arm, seed) for seed in arguments.seeds] for arm in (*ARMS, CHECKER)}
    for title, key in MEASURES.items():
        print(f"\n{title}\n\n{table(found, key)}")
    print(f"\ngain in accuracy, over seeds\n\n{gains(found)}")
    print(f"\nheld-out accuracy of the reward models\n\n{model_table(found)}")
    plot({arm: [curve(arm, seed) for seed in arguments.seeds] for arm in found}, WORKSPACE / f"{CONFIG.stem}.svg")


# ---- runs -----------------------------------------------------------------------------------------------------------


def make_laboratory() -> None:
    torch.set_num_threads(
        1
    )  # with another number of them, sums are rounded otherwise, and accuracy after as many updates is another one
    models = WORKSPACE / "laboratory" / "models"
    models.mkdir(parents=True, exist_ok=True)
    if not (models.parent / "sums.jsonl").exists():
        save_problems(models.parent / "sums.jsonl", QUESTIONS)
    for name, num_updates in {"sums": POLICY_UPDATES, "grader": GRADER_UPDATES}.items():
        if not (models / name / "tokenizer.json").exists():
            save_model(models / name, QUESTIONS, num_updates=num_updates)


def run_arms(seed: int) -> None:
    """Run all arms, each in its own workspace, because a workspace allows one run at a time."""
    first = workspace(FIRST, seed) / "runs" / "run" / "round_001" / "reward_model" / "proxy" / "model"
    for name, arm in ARMS.items():
        regroup(workspace(name, seed), seed, *arm.overrides(first))
    rewards = "rewards=[{name: correct, kind: outcome, extract: last_number, weight: 1}]"
    regroup(workspace(CHECKER, seed), seed, rewards, "reward_models={}", "regeneration.group_size=2")


def workspace(arm: str, seed: int) -> Path:
    return WORKSPACE / f"seed-{seed}" / arm.replace(", ", "-").replace(" ", "-")


def regroup(folder: Path, seed: int, *overrides: str) -> None:
    """Run `regroup run` with the workspace `folder` as current folder, on one core."""
    if (folder / "runs" / "run" / "summary.json").exists():
        return
    print(f"running {folder.relative_to(WORKSPACE)}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("models", "sums.jsonl"):
        if not (folder / name).exists():
            (folder / name).symlink_to(WORKSPACE / "laboratory" / name)
    changes = [part for change in (f"seed={seed}", *overrides) for part in ("--set", change)]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from flows.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "run", str(CONFIG), "--run", "run", *changes]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment)


def summary(arm: str, seed: int) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((workspace(arm, seed) / "runs" / "run" / "summary.json").read_bytes())
    return result


# ---- results --------------------------------------------------------------------------------------------------------


def values(summaries: Sequence[dict[str, Any]], key: str, round_index: int) -> list[float]:
    """The estimate of metric `key` for each seed; seeds whose round did not measure it are left out."""
    return [
        run["rounds"][round_index]["evaluation"][key]["estimate"]
        for run in summaries
        if key in run["rounds"][round_index]["evaluation"]
    ]


def interval(of_seeds: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds, and the half-width of its 95% interval by Student's t."""
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}[len(of_seeds)]
    return float(np.mean(of_seeds)), float(t * np.std(of_seeds, ddof=1) / np.sqrt(len(of_seeds)))


def told(of_seeds: Sequence[float], sign: str = "") -> str:
    mean, half = interval(of_seeds)
    return f"{mean:{sign}.3f} ± {half:.3f}"


def table(found: dict[str, list[dict[str, Any]]], key: str) -> str:
    """A row for each arm and round: the seeds in order, and their mean with its interval."""
    lines = ["| arm | round | seeds | mean |", "|---|---|---|---|"]
    for arm, summaries in found.items():
        for round_index in range(len(summaries[0]["rounds"])):
            of_seeds = values(summaries, key, round_index)
            if of_seeds:
                seeds = ", ".join(f"{value:.3f}" for value in of_seeds)
                lines.append(f"| {arm} | {round_index} | {seeds} | {told(of_seeds)} |")
    return "\n".join(lines)


def gains(found: dict[str, list[dict[str, Any]]]) -> str:
    """How accuracy after the last round differs between two arms, and from that after round 1, paired by seed."""
    key = "test/greedy_accuracy"
    last = {arm: values(summaries, key, -1) for arm, summaries in found.items()}
    frozen, given, frozen_given = list(ARMS)[1:]
    pairs = {
        "retrained - frozen, from the champion": (last[FIRST], last[frozen]),
        "retrained - frozen, from the given policy": (last[given], last[frozen_given]),
        "given policy - champion, retrained": (last[given], last[FIRST]),
        "given policy - champion, frozen": (last[frozen_given], last[frozen]),
    }
    pairs |= {f"last round - round 1, {arm}": (last[arm], values(found[arm], key, 1)) for arm in found}
    lines = ["| difference | seeds | mean |", "|---|---|---|"]
    for name, (more, less) in pairs.items():
        differences = [a - b for a, b in zip(more, less, strict=True)]
        lines.append(f"| {name} | {', '.join(f'{d:+.3f}' for d in differences)} | {told(differences, '+')} |")
    return "\n".join(lines)


def model_table(found: dict[str, list[dict[str, Any]]]) -> str:
    seeds = range(len(found[FIRST]))
    lines = ["| arm | round | " + " | ".join(f"seed {i}" for i in seeds) + " |", "|---" * (len(seeds) + 2) + "|"]
    for arm in (name for name in ARMS if not ARMS[name].is_frozen):
        for round_index in range(1, len(found[arm][0]["rounds"])):
            cells = []
            for run in found[arm]:
                model = run["rounds"][round_index]["reward_models"]["proxy"]
                accuracy, note = model["accuracy"], "" if model["accepted"] else "; refused, the last one was used"
                low, high = accuracy["low"], accuracy["high"]
                cells.append(f"{accuracy['estimate']:.2f} [{low:.2f}, {high:.2f}], n = {accuracy['n']}{note}")
            lines.append(f"| {arm} | {round_index} | {' | '.join(cells)} |")
    return "\n".join(lines)


# ---- curves ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """What one run's steps show, all rounds after one another; each value is a mean of WINDOW steps."""

    distance: list[float]
    """square root of KL(policy || given policy), of a whole response"""
    correct: list[float]
    proxy: list[float]


WINDOW = 16
"""a divisor of a round's 160 updates"""


def curve(arm: str, seed: int) -> Curve:
    distance, correct, proxy = [], [], []
    for path in sorted((workspace(arm, seed) / "runs" / "run").glob("round_*/policy/journal.jsonl")):
        by_key: dict[str, dict[int, float]] = {}
        for line in Journal(path).read():
            by_key.setdefault(line.key, {})[line.step] = line.value
        steps = sorted(by_key["objective/correct/mean"])
        for start in range(0, len(steps), WINDOW):
            window = set(steps[start : start + WINDOW])
            mean = {
                key: np.mean([v for step, v in of.items() if step in window])
                for key, of in by_key.items()
                if window & of.keys()
            }
            distance.append(float(np.sqrt(mean["policy/kl_initial"] * mean["response/length_mean"])))
            correct.append(float(mean["objective/correct/mean"]))
            proxy.append(float(mean.get("objective/proxy/mean", np.nan)))
    return Curve(distance, correct, proxy)


def plot(curves: dict[str, list[Curve]], path: Path) -> None:
    """Above by updates, below by distance from the given policy, the checker's mean and the reward model's."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    cells = figure.subplots(2, 2)
    for column, (key, title) in enumerate(
        {"correct": "share of samples that are right", "proxy": "reward model's mean score"}.items()
    ):
        for arm, of_seeds in curves.items():
            if key == "proxy" and arm == CHECKER:
                continue
            look = ARMS.get(arm, Arm("#888888", line=":"))
            _draw(cells[0][column], cells[1][column], of_seeds, key, arm, look)
        cells[0][column].set_title(title, fontsize=9)
        cells[0][column].set_xlabel("updates")
        cells[1][column].set_xlabel("distance from the given policy, sqrt(KL of a response)")
    for axes in cells.flat:
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *cells[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8
    )
    figure.savefig(path)


def _draw(by_update: Axes, by_distance: Axes, curves: Sequence[Curve], key: str, arm: str, look: Arm) -> None:
    of_seeds = np.array([getattr(curve, key) for curve in curves])
    updates = WINDOW * (np.arange(of_seeds.shape[1]) + 0.5)
    by_update.plot(updates, of_seeds.mean(axis=0), look.line, color=look.colour, label=arm)
    by_update.fill_between(
        updates, of_seeds.min(axis=0), of_seeds.max(axis=0), color=look.colour, alpha=0.12, linewidth=0
    )
    for curve in curves:
        filled = "none" if look.from_given else look.colour
        points: dict[str, Any] = {
            "markerfacecolor": filled,
            "markeredgecolor": look.colour,
            "markersize": 3.5,
            "alpha": 0.6,
        }
        by_distance.plot(curve.distance, getattr(curve, key), "o", **points)


if __name__ == "__main__":
    main()
