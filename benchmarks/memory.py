"""Peak memory of a training step against the number of responses in an update, each in a process of its own.

    python -m benchmarks.memory [--responses 32 64 128 256]

With `generation_rows` and `micro_batch_tokens` held, what grows with the batch is the text of its responses.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contestant import Referee, run_regroup
from benchmarks.workloads import GROUP_SIZE, WORKLOADS, settings

RESULTS = Path("build/benchmarks/memory.json")
HELD: dict[str, object] = {"grpo_config.generation_rows": 32, "grpo_config.micro_batch_tokens": 1024}
VARIANTS: dict[str, dict[str, object]] = {
    "as it is": {},
    "activation_checkpointing": {"grpo_config.activation_checkpointing": True},
    "lora": {"grpo_config.lora": "{rank: 16}"},
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--step", nargs=2, metavar=("VARIANT", "RESPONSES"), help="measure one in this process")
    given = parser.parse_args(arguments)
    if given.step:
        variant, number = given.step
        changes = HELD | VARIANTS[variant] | {"grpo_config.batch_size": int(number)}
        run_regroup(WORKLOADS["fixed"], Referee(), settings(**changes))
        return
    cases = [("as it is", number) for number in given.responses]
    cases += [(variant, given.responses[0]) for variant in VARIANTS if variant != "as it is"]
    found = [{"variant": variant, "responses": number, **step(variant, number)} for variant, number in cases]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(f"| setting | responses an update (groups of {GROUP_SIZE}) | peak memory (MB) | s a step |")
    print("|---|---|---|---|")
    for row in found:
        print(f"| {row['variant']} | {row['responses']} | {row['peak_mb']:,.0f} | {row['seconds']:.1f} |")


def step(variant: str, number: int) -> dict[str, float]:
    """Peak and seconds of the second of two steps."""
    command = [sys.executable, "-m", "benchmarks.memory", "--step", variant, str(number)]
    done = subprocess.run(command, input="step\nstep\n", capture_output=True, text=True, check=True)
    facts = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    return {name: facts[name] for name in ("peak_mb", "seconds")}


if __name__ == "__main__":
    main()
