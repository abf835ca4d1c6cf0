"""Measures what it saves, and what it costs, that a vLLM server writes the next step's responses during the update.

    make vllm
    python -m benchmarks.servers.overlap [--seeds 0 1 2] [--steps 16]

SmolLM2-135M trains on the quickstart's problems through a server, with `max_staleness` 0 and 1 and each seed: 4 problems a
step in groups of 8, in float32, so that server and trainer agree to the last digits. Both have the same problems, order,
seeds and number of steps. Server and trainer get a core each, and neither a second one: what one saves by waiting, the other
cannot use. Trainings that are measured are in build/benchmarks/overlap and not measured again. Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.results import FOLDER, kept, table
from benchmarks.retrained_against_frozen import interval
from benchmarks.workloads import MODEL, ROUND, Workload, open_rewards, problems
from configs.records import Policy, is_right
from configs.schema.config import Config
from flows.engines.watching import answers
from flows.prefect_server import HOST, free_port
from grpo_train.following import Serving
from grpo_train.policies.model import load_policy
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.step import StepResult
from grpo_train.trainer import train
from reward_training.scorer import score
from tasks.running.allocator import reused_memory

ARMS = (0, 1)
"""values of max_staleness"""
START_S = 900.0
"""for the server to be ready"""
OF_STEPS = (
    "time/generate", "time/overlapped", "time/weights", "time/score", "time/update",
    "policy/importance_weight", "policy/importance_too_high", "policy/writer_distance", "vllm/mismatch",
)  # fmt: skip
"""metrics of which the mean over the steps is kept"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="two to five for intervals")
    parser.add_argument("--steps", type=int, default=16)
    given = parser.parse_args()
    print(summary(given.seeds, given.steps))


def summary(seeds: Sequence[int], num_steps: int) -> str:
    """The results as a Markdown table; only missing trainings are measured."""
    cases = {(arm, seed): f"overlap/{num_steps}-steps-staleness-{arm}-seed-{seed}" for seed in seeds for arm in ARMS}
    server_core, trainer_core = sorted(os.sched_getaffinity(0))[:2]
    is_there = all((FOLDER / f"{case}.json").exists() for case in cases.values())
    with nullcontext("") if is_there else served(server_core) as url:
        os.sched_setaffinity(0, {trainer_core})
        torch.set_num_threads(1)
        before = kept("overlap/before", partial(measured, url, arm=0, seed=0, num_steps=0))
        found = {
            (arm, seed): kept(case, partial(measured, url, arm, seed, num_steps)) for (arm, seed), case in cases.items()
        }
    return report(before["accuracy"], found, seeds)


def report(before: float, found: dict[tuple[int, int], dict[str, Any]], seeds: Sequence[int]) -> str:
    """Each training, and below it the differences between the arms over the seeds, with 95% intervals."""
    rows = [
        [str(arm), str(seed), f"{one['seconds']:.1f}", f"{one['accuracy']:.3f}"]
        + ["-" if one[key] is None else f"{one[key]:.3g}" for key in OF_STEPS]
        for (arm, seed), one in found.items()
    ]
    lines = [table(["max_staleness", "seed", "training (s)", "accuracy", *OF_STEPS], rows), ""]
    lines.append(f"greedy accuracy on dev before: {before:.3f}")
    for key, text in (("seconds", "seconds of training"), ("accuracy", "greedy accuracy on dev")):
        arms = {arm: [found[arm, seed][key] for seed in seeds] for arm in ARMS}
        differences = [one - none for none, one in zip(arms[0], arms[1], strict=True)]
        told = [with_interval(values) for values in (arms[0], arms[1], differences)]
        lines.append(f"{text}: {told[0]} with 0, {told[1]} with 1; difference, seed by seed: {told[2]}")
    return "\n".join(lines)


def with_interval(of_seeds: Sequence[float]) -> str:
    """The mean, and the half-width of its 95% interval where there are several seeds."""
    if len(of_seeds) < 2:
        return f"{of_seeds[0]:.3f} (one seed)"
    mean, half = interval(of_seeds)
    return f"{mean:.3f} ± {half:.3f}"


# ---- one training ---------------------------------------------------------------------------------------------------


def settings(url: str, arm: int, seed: int, num_steps: int) -> Config:
    """The quickstart's configuration for one training, without KL term and reward model."""
    workload = Workload("natural", is_fixed=False, num_prompts=4, group_size=8, response_length=24, seed=seed)
    return workload.settings(
        **{
            "grpo_config.max_updates": max(num_steps, 1),
            "grpo_config.precision": "float32",
            "grpo_config.vllm": f"{{urls: ['{url}'], max_staleness: {arm}}}",
        }
    )


def measured(url: str, arm: int, seed: int, num_steps: int) -> dict[str, Any]:
    """Train once; returns seconds of all steps, the dev accuracy after them, and means of OF_STEPS, None where no step has it."""
    config = settings(url, arm, seed, num_steps)
    model, tokenizer = load_policy(MODEL, device="cpu")
    splits = problems(settings(url, arm, 0, num_steps), tokenizer)  # those of all seeds are the same
    workload = Workload("natural", is_fixed=False)
    rewards = open_rewards(workload, config)
    base = Policy(path=str(MODEL), id="base", round=0)
    steps: list[StepResult] = []
    with reused_memory(), tempfile.TemporaryDirectory() as folder:
        if num_steps:
            train(
                model,
                tokenizer,
                splits["train"],
                policy=base,
                initial_policy=base,
                rewards=rewards,
                config=config,
                round_index=ROUND,
                on_step=steps.append,
                serving=Serving(Path(folder), base, warn=print),
            )
        greedy = Sampling(1, 0.0, config.grpo_config.max_response_length)
        completions = sample(model, tokenizer, splits["dev"], greedy, seed=0, policy_id="measured")
    scores = score(splits["dev"], completions, [reward for reward in rewards if reward.name in config.checkers])
    accuracy = fmean(is_right(row.parts[config.checkers[0]]) for row in scores)
    seconds = sum(step.metrics["time/step"] for step in steps)
    means = {key: mean([step.metrics[key] for step in steps if key in step.metrics]) for key in OF_STEPS}
    return {"seconds": seconds, "accuracy": accuracy, **means, "num_dev": len(splits["dev"])}


def mean(values: Sequence[float]) -> float | None:
    """Their mean; None of none."""
    return fmean(values) if values else None


# ---- the server -----------------------------------------------------------------------------------------------------


@contextmanager
def served(core: int) -> Iterator[str]:
    """The address of a server that `regroup vllm` starts on one core, and ends."""
    url = f"http://{HOST}:{free_port()}"
    changes = {
        "grpo_config.vllm": f"{{urls: ['{url}']}}",
        "grpo_config.precision": "float32",
        "grpo_config.max_response_length": 24,
        "grpo_config.generation_rows": 32,  # bounds the memory that the server takes
    }
    options = [text for name, value in changes.items() for text in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "flows.cli", "vllm", "configs/quickstart.yaml", *options]
    variables = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": str(core)}  # it would keep a core for itself
    server = subprocess.Popen(["taskset", "-c", str(core), *command], env=os.environ | variables)
    try:
        deadline = time.monotonic() + START_S
        while not answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no server at {url}; see .vllm/")
            time.sleep(1)
        yield url
    finally:
        server.terminate()
        server.wait(60)


if __name__ == "__main__":
    main()
