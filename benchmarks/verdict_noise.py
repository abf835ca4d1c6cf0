"""How much noise of the checker's verdicts training stands.

    python -m benchmarks.verdict_noise [--seeds 0 1 2] [--show]

An arm of the experiment trains on verdicts of which a share is flipped: wrong answers called right (`accepts_05`: 5% of
them) or right answers called wrong (`refusals_05`). Accuracy is measured with clean verdicts. The runs are ordinary
Regroup runs in build/experiments/verdict_noise; those that are finished are not run again, so an interrupted call can be
continued. Makes the tables and the plot of docs/experiments/verdict_noise.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.retrained_against_frozen import interval
from configs.disk.files import read_rows
from configs.records import RIGHT, Completion, Problem, is_right
from configs.schema.rewards import OutcomeRewardConfig
from configs.seeds import rng_for
from reward_training.reward import Value
from reward_training.rewards.outcome import OutcomeReward

ROOT = Path(__file__).parents[1]
WORKSPACE = ROOT / "build" / "experiments" / "verdict_noise"
CONFIG = ROOT / "docs" / "experiments" / "verdict_noise.yaml"
KINDS = {"accepts": "#d9782d", "refusals": "#3d85c6"}
RATES = (0.02, 0.05, 0.10, 0.20)
CLEAN = "clean"
ARMS = {CLEAN: (0.0, 0.0)} | {f"accepts_{rate * 100:02.0f}": (rate, 0.0) for rate in RATES}
ARMS |= {f"refusals_{rate * 100:02.0f}": (0.0, rate) for rate in RATES}
"""{arm: (share of wrong answers called right, share of right answers called wrong)}"""
MEASURES = {
    "greedy accuracy on test": "test/greedy_accuracy",
    "accuracy of samples on test": "test/sampled/correct",
}
CHECKER = OutcomeReward(OutcomeRewardConfig(name="correct", extract="last_number"))


# ---- the rewards of the arms ----------------------------------------------------------------------------------------


def flipped(
    problems: Sequence[Problem], completions: Sequence[Completion], *, accepts: float, refusals: float
) -> list[Value]:
    """The checker's verdicts, where a wrong answer is called right with probability `accepts`, and a right one wrong
    with probability `refusals`.

    Each draw is seeded by the completion alone (its seed, which is the run's and the step's, problem and index), so
    that a repeated step has the same verdicts. A draw is the same in all arms: what is flipped at a low rate is flipped
    at a higher one.
    """
    right = [value == RIGHT for value in CHECKER(problems, completions)]
    rates = [refusals if verdict else accepts for verdict in right]
    pairs = zip(completions, rates, strict=True)
    flips = [_is_flipped(completion, rate) for completion, rate in pairs]
    return [float(verdict != flip) for verdict, flip in zip(right, flips, strict=True)]


def _is_flipped(completion: Completion, rate: float) -> bool:
    purpose = f"verdict noise {completion.problem_key}"
    return bool(rng_for(completion.seed, purpose, step=completion.step, index=completion.index).random() < rate)


clean = partial(flipped, accepts=0.0, refusals=0.0)
accepts_02 = partial(flipped, accepts=0.02, refusals=0.0)
accepts_05 = partial(flipped, accepts=0.05, refusals=0.0)
accepts_10 = partial(flipped, accepts=0.10, refusals=0.0)
accepts_20 = partial(flipped, accepts=0.20, refusals=0.0)
refusals_02 = partial(flipped, accepts=0.0, refusals=0.02)
refusals_05 = partial(flipped, accepts=0.0, refusals=0.05)
refusals_10 = partial(flipped, accepts=0.0, refusals=0.10)
refusals_20 = partial(flipped, accepts=0.0, refusals=0.20)


# ---- runs -----------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--show", action="store_true", help="only what is there")
    arguments = parser.parse_args()
    if not arguments.show:
        for seed in arguments.seeds:
            for arm in ARMS:
                run_arm(arm, seed)
    found = {arm: {seed: summary(arm, seed) for seed in arguments.seeds if is_finished(arm, seed)} for arm in ARMS}
    for title, key in MEASURES.items():
        print(f"\n{title}\n\n{table(found, key)}\n\n{slopes(found, key)}")
    print(f"\nverdicts in training\n\n{flip_table(found)}")
    plot(found, CONFIG.with_suffix(".svg"))


def run_arm(arm: str, seed: int) -> None:
    """Run or resume one arm with one seed, unless it is finished; the runs share a workspace."""
    if is_finished(arm, seed):
        return
    WORKSPACE.mkdir(parents=True, exist_ok=True)
    if not (WORKSPACE / "models").exists():
        (WORKSPACE / "models").symlink_to(ROOT / "models")
    begun = time.monotonic()
    changes = ["--set", f"seed={seed}", "--set", f"rewards.0.function=benchmarks.verdict_noise:{arm}"]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from flows.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "run", str(CONFIG), "--run", run_name(arm, seed), *changes]
    subprocess.run(command, cwd=WORKSPACE, check=True, stdout=subprocess.DEVNULL)
    print(f"{run_name(arm, seed)}: {time.monotonic() - begun:.0f} s", flush=True)


def run_name(arm: str, seed: int) -> str:
    return f"{arm}-seed-{seed}"


def is_finished(arm: str, seed: int) -> bool:
    path = WORKSPACE / "runs" / run_name(arm, seed) / "summary.json"
    return path.exists() and json.loads(path.read_bytes())["status"] == "done"


def summary(arm: str, seed: int) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((WORKSPACE / "runs" / run_name(arm, seed) / "summary.json").read_bytes())
    return result


# ---- results --------------------------------------------------------------------------------------------------------

Found = dict[str, dict[int, dict[str, Any]]]
"""{arm: {seed: summary of the run}}, finished runs only"""


def values(found: Found, arm: str, key: str, round_index: int = 1) -> dict[int, float]:
    """{seed: estimate of metric `key`}."""
    return {seed: run["rounds"][round_index]["evaluation"][key]["estimate"] for seed, run in found[arm].items()}


def differences(found: Found, arm: str, key: str) -> list[float]:
    """Metric `key` of the arm minus that of the clean arm with the same seed, for seeds that have both."""
    of_clean = values(found, CLEAN, key)
    return [value - of_clean[seed] for seed, value in values(found, arm, key).items() if seed in of_clean]


def seed_slopes(found: Found, kind: str, key: str) -> list[float]:
    """For each seed that has all rates: what a straight line through metric `key` changes per 10% of flipped verdicts."""
    arms = {0.0: CLEAN} | {rate: f"{kind}_{rate * 100:02.0f}" for rate in RATES}
    by_rate = {rate: values(found, arm, key) for rate, arm in arms.items()}
    whole = [seed for seed in by_rate[0.0] if all(seed in of_seeds for of_seeds in by_rate.values())]
    rates = list(by_rate)
    return [float(np.polyfit(rates, [by_rate[rate][seed] for rate in rates], 1)[0]) / 10 for seed in whole]


def cell(of_seeds: Sequence[float], sign: str = "") -> str:
    """Mean and 95% interval over seeds; a dash where two seeds are not there yet."""
    if len(of_seeds) < 2:
        return "-"
    mean, half = interval(of_seeds)
    return f"{mean:{sign}.3f} ± {half:.3f}"


def table(found: Found, key: str) -> str:
    lines = ["| verdicts | seeds | mean | minus clean, same seed |", "|---|---|---|---|"]
    given = list(values(found, CLEAN, key, round_index=0).values())
    lines.append(f"| before training | {', '.join(f'{value:.3f}' for value in given)} | {cell(given)} | |")
    for arm in ARMS:
        of_seeds = list(values(found, arm, key).values())
        difference = "" if arm == CLEAN else cell(differences(found, arm, key), "+")
        seeds = ", ".join(f"{value:.3f}" for value in of_seeds)
        lines.append(f"| {words(arm)} | {seeds} | {cell(of_seeds)} | {difference} |")
    return "\n".join(lines)


def words(arm: str) -> str:
    accepts, refusals = ARMS[arm]
    if arm == CLEAN:
        return "clean"
    return f"{accepts:.0%} false accepts" if accepts else f"{refusals:.0%} false refusals"


def slopes(found: Found, key: str) -> str:
    lines = ["| per 10% of flipped verdicts | seeds | mean |", "|---|---|---|"]
    for kind in KINDS:
        of_seeds = seed_slopes(found, kind, key)
        lines.append(f"| false {kind} | {', '.join(f'{slope:+.3f}' for slope in of_seeds)} | {cell(of_seeds, '+')} |")
    return "\n".join(lines)


def flip_table(found: Found) -> str:
    """What was really flipped in training, over all seeds."""
    lines = [
        "| verdicts | wrong called right | right called wrong | flipped, of all | wrong, of those called right |",
        "|---|---|---|---|---|",
    ]
    for arm in ARMS:
        if pairs := [pair for seed in found[arm] for pair in training_verdicts(arm, seed)]:
            wrong = [said for true, said in pairs if not true]
            right = [not said for true, said in pairs if true]
            flips = [true != said for true, said in pairs]
            false_praise = [not true for true, said in pairs if said]
            shares = " | ".join(
                f"{np.mean(flags):.1%} of {len(flags)}" for flags in (wrong, right, flips, false_praise)
            )
            lines.append(f"| {words(arm)} | {shares} |")
    return "\n".join(lines)


def training_verdicts(arm: str, seed: int) -> list[tuple[bool, bool]]:
    """(true verdict, verdict trained on) of every response of a run's training."""
    rows = read_rows(WORKSPACE / "runs" / run_name(arm, seed) / "round_001" / "policy" / "rollouts.jsonl")
    return [(is_right(row["parts"]["correct"]), is_right(row["parts"]["noisy"])) for row in rows]


def plot(found: Found, path: Path) -> None:
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    for axes, (title, key) in zip(figure.subplots(1, 2), MEASURES.items(), strict=True):
        for kind, colour in KINDS.items():
            by_rate = {0.0: CLEAN} | {rate: f"{kind}_{rate * 100:02.0f}" for rate in RATES}
            shift = 0.15 if kind == "accepts" else -0.15
            points = {
                100 * rate + shift: list(of_seeds.values())
                for rate, arm in by_rate.items()
                if (of_seeds := values(found, arm, key))
            }
            spread = [interval(point) if len(point) > 1 else (point[0], 0.0) for point in points.values()]
            axes.errorbar(
                list(points),
                [mean for mean, _ in spread],
                [half for _, half in spread],
                fmt="o-",
                color=colour,
                capsize=3,
                label=f"false {kind}",
            )
            for rate, point in points.items():
                axes.plot([rate] * len(point), point, ".", color=colour, alpha=0.4)
        if given := list(values(found, CLEAN, key, round_index=0).values()):
            axes.axhline(float(np.mean(given)), color="grey", linestyle=":", label="before training")
        axes.set_xlabel("flipped verdicts (%)")
        axes.set_title(title, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.25)  # room for the legend
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    figure.savefig(path)


if __name__ == "__main__":
    main()
