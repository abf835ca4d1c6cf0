"""Compares a reward model that is retrained in each round with one that stays as after round 1.

    python -m benchmarks.retrained_against_frozen [--seeds 0 1 2]

Both arms share problems, first policy, first reward model, and numbers of samples and updates. They differ in rounds 2
and 3 only, where one arm retrains its reward model. Policies are judged by the checker and by the reward model. The
runs are ordinary Regroup runs in build/experiments; an interrupted call can be continued. Makes the tables and the plot
of docs/experiments/retrained_against_frozen.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
WORKSPACE = ROOT / "build" / "experiments"
CONFIG = ROOT / "docs" / "experiments" / "retrained_against_frozen.yaml"
ARMS = {"retrained": "#3d85c6", "frozen": "#d9782d"}
MEASURES = {
    "greedy accuracy on test (checker)": "test/greedy_accuracy",
    "mean score of samples on test (reward model)": "test/sampled/quality",
    "KL from the initial policy (nats a token)": "test/kl_initial",
    "response length (tokens)": "test/response_length",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--show", action="store_true", help="only what is there")
    arguments = parser.parse_args()
    if not arguments.show:
        for seed in arguments.seeds:
            run_arms(seed)
    if len(arguments.seeds) < 2:
        return  # nothing to average
    found = {arm: [summary(arm, seed) for seed in arguments.seeds] for arm in ARMS}
    for title, key in MEASURES.items():
        print(f"\n{title}\n\n{table(found, key)}")
    print(f"\nheld-out accuracy of the reward model that the round used\n\n{model_table(found['retrained'])}")
    plot(found, WORKSPACE / "retrained_against_frozen.svg")


# ---- runs -----------------------------------------------------------------------------------------------------------


def run_arms(seed: int) -> None:
    """Run both arms, each in its own workspace, because a workspace allows one run at a time."""
    regroup(workspace("retrained", seed), "retrained", seed)
    model = workspace("retrained", seed) / "runs" / "retrained" / "round_001" / "reward_model" / "quality" / "model"
    regroup(workspace("frozen", seed), "frozen", seed, f"reward_models.quality={{kind: frozen, path: {model}}}")


def workspace(arm: str, seed: int) -> Path:
    return WORKSPACE / f"seed-{seed}-{arm}"


def regroup(folder: Path, name: str, seed: int, *overrides: str) -> None:
    """Run `regroup run` with the workspace `folder` as current folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "models").exists():
        (folder / "models").symlink_to(ROOT / "models")
    changes = [part for change in (f"seed={seed}", *overrides) for part in ("--set", change)]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from flows.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "run", str(CONFIG), "--run", name, *changes]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def summary(arm: str, seed: int) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((workspace(arm, seed) / "runs" / arm / "summary.json").read_bytes())
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


def table(found: dict[str, list[dict[str, Any]]], key: str) -> str:
    rounds = range(len(found["retrained"][0]["rounds"]))
    lines = ["| round | retrained: seeds | mean | frozen: seeds | mean |", "|---|---|---|---|---|"]
    for round_index in rounds:
        cells = []
        for arm in ARMS:
            of_seeds = values(found[arm], key, round_index)
            if not of_seeds:
                cells += ["-", "-"]
                continue
            mean, half = interval(of_seeds)
            cells += [", ".join(f"{value:.3f}" for value in of_seeds), f"{mean:.3f} ± {half:.3f}"]
        lines.append(f"| {round_index} | {' | '.join(cells)} |")
    return "\n".join(lines)


def model_table(summaries: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| round | " + " | ".join(f"seed {i}" for i in range(len(summaries))) + " |",
        "|---" * (len(summaries) + 1) + "|",
    ]
    for round_index in range(1, len(summaries[0]["rounds"])):
        cells = []
        for run in summaries:
            model = run["rounds"][round_index]["reward_models"]["quality"]
            accuracy, note = model["accuracy"], "" if model["accepted"] else "; refused, the last one was used"
            low, high = accuracy["low"], accuracy["high"]
            cells.append(f"{accuracy['estimate']:.2f} [{low:.2f}, {high:.2f}], n = {accuracy['n']}{note}")
        lines.append(f"| {round_index} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    for axes, (title, key) in zip(figure.subplots(1, 2), list(MEASURES.items())[:2], strict=True):
        for arm, colour in ARMS.items():
            rounds = [
                round_index
                for round_index in range(len(found[arm][0]["rounds"]))
                if values(found[arm], key, round_index)
            ]
            spread = [interval(values(found[arm], key, round_index)) for round_index in rounds]
            axes.errorbar(
                rounds,
                [mean for mean, _ in spread],
                [half for _, half in spread],
                fmt="o-",
                color=colour,
                capsize=3,
                label=arm,
            )
            for round_index in rounds:
                axes.plot(
                    [round_index] * len(found[arm]), values(found[arm], key, round_index), ".", color=colour, alpha=0.4
                )
        axes.set_xlabel("round")
        axes.set_xticks(range(len(found["frozen"][0]["rounds"])))
        axes.set_title(title, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main()
