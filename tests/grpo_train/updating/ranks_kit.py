"""Starts trainings on given responses in one process or several ranks, and reads what they did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from configs.records import Completion
from tests.grpo_train.updating.sharded_program import CASES
from tests.paths import ROOT

PROGRAM = "tests.grpo_train.updating.sharded_program"
SETTINGS: dict[str, Any] = {
    "group_size": 2,
    "batch_size": 8,
    "precision": "float32",
    "temperature": 1.0,
    "learning_rate": 1e-4,
    "max_response_length": 16,
    "micro_batch_tokens": 32,
}
LENGTHS = (5, 1, 3, 7, 2, 2, 16, 4)
"""of the responses"""


class Trained(NamedTuple):
    steps: list[dict[str, Any]]
    folder: Path
    held_mib: list[float]
    """memory of each rank after the last step"""
    peak_mib: list[float]
    """the most that each rank has had"""

    @property
    def weights(self) -> dict[str, Tensor]:
        return load_file(self.folder / "model/model.safetensors")


def completions(vocabulary: int, lengths: Sequence[int], *, num_prompt_tokens: int = 4) -> list[Completion]:
    """Random responses of these lengths, in groups of two, with the log-probabilities that a server may have given."""
    draw = torch.Generator().manual_seed(1)
    written = []
    for i, length in enumerate(lengths):
        prompt = [10 * (i // 2 + 1) + k % 5 for k in range(num_prompt_tokens)]
        ids = torch.randint(5, vocabulary, (length,), generator=draw).tolist()
        logprobs = (-3 * torch.rand(length, generator=draw)).tolist()
        written.append(
            Completion(
                problem_key=str(i // 2),
                index=i % 2,
                prompt_ids=prompt,
                token_ids=ids,
                text="",
                finish_reason="stop",
                logprobs=logprobs,
                policy_id="given",
                step=1,
                seed=0,
            )
        )
    return written


def case(
    policy: Path,
    responses: Sequence[Completion] = (),
    *,
    num_steps: int = 3,
    save: bool = False,
    measure: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """A training of `num_steps` updates on the same responses, with a checkpoint after each if `save`; with `measure` also
    what forward passes alone find after each."""
    given = list(responses) or completions(100, LENGTHS)
    return {
        "policy": str(policy), "grpo": SETTINGS | settings, "num_steps": num_steps, "save": save, "measure": measure,
        "completions": [each.model_dump(mode="json") for each in given],
        "rewards": [float(i % 2 == 0) * (1 + i / 8) for i in range(len(given))],
    }  # fmt: skip


def train(
    folder: Path, cases: Mapping[str, dict[str, Any]], *, num_ranks: int, timeout_s: float = 1500
) -> dict[str, Trained]:
    """What the cases came to, one after the other in the same ranks; those in a folder with checkpoints go on from them."""
    finish(start(folder, cases, num_ranks=num_ranks), timeout_s)
    return {name: _read(folder / name, num_ranks) for name in cases}


def kill(started: Sequence[subprocess.Popen[str]], *, once_there: Path, timeout_s: float = 1500) -> None:
    """Kill the ranks without warning as soon as a file or folder is there."""
    end = time.monotonic() + timeout_s
    try:
        while not once_there.exists():
            assert time.monotonic() < end, f"{once_there} did not come"
            assert all(process.poll() is None for process in started), "\n".join(p.communicate()[0] for p in started)
            time.sleep(0.05)
    finally:
        for process in started:
            process.kill()
            process.communicate()


def start(folder: Path, cases: Mapping[str, dict[str, Any]], *, num_ranks: int) -> list[subprocess.Popen[str]]:
    """Start the ranks, or the only process, that train the cases."""
    folders = {name: folder / name for name in cases}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    given = [each | {"folder": str(folders[name])} for name, each in cases.items()]
    (folder / CASES).write_text(json.dumps(given), encoding="utf-8")
    return start_ranks(PROGRAM, folder, num_ranks)


def start_ranks(program: str, folder: Path, num_ranks: int) -> list[subprocess.Popen[str]]:
    """Start a program of the tests, which is given the folder, as ranks or as the only process."""
    (folder / "ranks.store").unlink(missing_ok=True)
    places = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "vllm_plugin")])}
    return [
        subprocess.Popen(
            [sys.executable, "-m", program, str(folder)],
            env=os.environ | places | _rank(i, num_ranks),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(num_ranks)
    ]


def finish(started: Sequence[subprocess.Popen[str]], timeout_s: float) -> None:
    """Wait until all ranks have ended, without a fault."""
    try:
        said = [process.communicate(timeout=timeout_s)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * len(started), "\n".join(said)


def _read(folder: Path, num_ranks: int) -> Trained:
    told = [json.loads((folder / f"rank_{i}.json").read_bytes()) for i in range(num_ranks)]
    return Trained(told[0]["steps"], folder, *([each[key] for each in told] for key in ("held_mib", "peak_mib")))


def _rank(index: int, count: int) -> dict[str, str]:
    alone = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    if count == 1:
        return alone
    place = {"RANK": str(index), "WORLD_SIZE": str(count), "LOCAL_RANK": str(index), "LOCAL_WORLD_SIZE": str(count)}
    # address and port are asked for and not used: the ranks meet in a file
    return alone | place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
