"""Runs one of the two systems in its own process, controlled by lines on standard input. Answers are lines of JSON.

`step` makes a training step and prints its time and peak memory. `accuracy` prints the greedy accuracy on the
quickstart's dev problems. `ready` is answered as soon as everything is loaded.

python -m benchmarks.contestant regroup natural
python -m benchmarks.contestant trl fixed --micro-batch 16 --bf16 --response-length 128
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.workloads import (
    MODEL_SIZES,
    ROUND,
    WORKLOADS,
    Workload,
    as_trl_rewards,
    in_order,
    open_model,
    open_rewards,
    problems,
)
from configs.errors import StageStopped
from configs.records import Policy, Problem, is_right
from configs.schema.config import Config
from grpo_train.policies.adapter import Adapter
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.step import StepResult
from grpo_train.trainer import train
from reward_training.scorer import score
from reward_training.transformer.precision import pick_device
from tasks.running.allocator import reused_memory

MAX_STEPS = 64


@dataclass
class Referee:
    """Waits for commands on standard input, and reports the time and peak memory of each step."""

    accuracy: Callable[[], float]
    started: float = field(default=0.0)

    def wait(self) -> bool:
        """Wait for the command `step`, and answer other commands meanwhile. False if the input ends."""
        for line in sys.stdin:
            if line.strip() == "step":
                self.started = time.perf_counter()
                return True
            answer = {"accuracy": self.accuracy()} if line.strip() == "accuracy" else {"ready": True}
            print(json.dumps(answer), flush=True)
        return False

    def tell(self, **facts: Any) -> None:
        facts["seconds"] = time.perf_counter() - self.started
        facts["peak_mb"] = peak_memory_mb()
        print(json.dumps(facts), flush=True)


@dataclass(frozen=True)
class Student:
    """The model in training, with its workload, configuration and problems."""

    workload: Workload
    config: Config
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    problems: dict[str, list[Problem]]

    def accuracy(self) -> float:
        """Share of the dev problems that the greedy response solves."""
        dev, grpo = self.problems["dev"], self.config.grpo_config
        greedy = Sampling(1, 0.0, grpo.max_response_length, max_rows=grpo.generation_rows)
        was_training = self.model.training
        self.model.eval()  # type: ignore[no-untyped-call]
        with own_forward(self.model):
            completions = sample(self.model, self.tokenizer, dev, greedy, seed=0, policy_id="examined")
        self.model.train(was_training)
        rewards = [r for r in open_rewards(self.workload, self.config) if r.name in self.config.checkers]
        return fmean(is_right(row.parts[self.config.checkers[0]]) for row in score(dev, completions, rewards))


@contextmanager
def own_forward(model: PreTrainedModel) -> Iterator[None]:
    """Inside this context the model runs without what a trainer has put around it: autocast, TRL's fused loss."""
    wrapped = vars(model).pop("forward", None)
    try:
        yield
    finally:
        if wrapped is not None:
            vars(model)["forward"] = wrapped


def open_student(workload: Workload, config: Config) -> Student:
    model, tokenizer = open_model(workload)
    return Student(workload, config, model, tokenizer, problems(config, tokenizer))


def peak_memory_mb() -> float:
    """Peak memory of this process in MiB: GPU memory if it runs on a GPU, otherwise resident memory."""
    if pick_device().type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def run_regroup(student: Student) -> None:
    """Run our GRPO loop as `regroup run` does."""
    referee, config = Referee(student.accuracy), student.config
    base = Policy(path="", id="base", round=0)
    if config.grpo_config.lora is not None:
        Adapter(student.model, config.grpo_config.lora, seed=0)

    def on_step(result: StepResult) -> None:
        referee.tell(**result.metrics)

    try:
        with reused_memory():  # as in every stage
            train(
                student.model,
                student.tokenizer,
                student.problems["train"],
                policy=base,
                initial_policy=base,
                rewards=open_rewards(student.workload, config),
                config=config,
                round_index=ROUND,
                on_step=on_step,
                should_stop=lambda: not referee.wait(),
            )
    except StageStopped:
        return


class _Steps(TrainerCallback):
    """Waits for commands and reports steps in TRL's trainer, whose step includes the sampling."""

    def __init__(self, referee: Referee) -> None:
        self.referee = referee

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if not self.referee.wait():
            raise StageStopped("no further step is wanted")

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.referee.tell()


def run_trl(student: Student, micro_batch: int, bf16: bool) -> None:
    """Run TRL's GRPOTrainer on the same problems in the same order."""
    with TemporaryDirectory() as scratch:
        trainer = trl_trainer(student, micro_batch=micro_batch, bf16=bf16, scratch=scratch)
        trainer.add_callback(_Steps(Referee(student.accuracy)))
        try:
            trainer.train()
        except StageStopped:
            return


def trl_trainer(student: Student, *, micro_batch: int, bf16: bool, scratch: str) -> GRPOTrainer:
    """TRL's trainer with the same settings as ours."""
    config, grpo = student.config, student.config.grpo_config
    micro_batch = min(micro_batch, grpo.batch_size)
    ordered_problems = in_order(student.problems["train"], config, MAX_STEPS)
    rewards = open_rewards(student.workload, config)
    rows = [{"prompt": problem.prompt, "key": problem.key} for problem in ordered_problems]
    arguments = GRPOConfig(
        output_dir=scratch,
        use_cpu=pick_device().type == "cpu",
        bf16=bf16,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=grpo.batch_size // micro_batch,
        num_generations=grpo.group_size,
        max_completion_length=grpo.max_response_length,
        max_steps=MAX_STEPS,
        temperature=grpo.temperature,
        learning_rate=grpo.learning_rate,
        adam_beta1=grpo.adam_betas[0],
        adam_beta2=grpo.adam_betas[1],
        weight_decay=grpo.weight_decay,
        max_grad_norm=grpo.max_grad_norm,
        lr_scheduler_type="constant",
        beta=grpo.kl_coefficient,
        epsilon=grpo.clip_range,
        loss_type="grpo",
        scale_rewards=config.combination.scale,
        reward_weights=[reward.weight for reward in rewards],
        shuffle_dataset=False,
        activation_checkpointing=False,
        gradient_checkpointing=False,  # its old name, which TRL sets
        disable_dropout=True,
        seed=config.seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = GRPOTrainer(
        model=student.model,
        args=arguments,
        reward_funcs=list(as_trl_rewards(rewards, ordered_problems)),
        train_dataset=Dataset.from_list(rows),
        processing_class=student.tokenizer,
    )
    trainer.pop_callback(PrinterCallback)
    return trainer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=["regroup", "trl"])
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--response-length", type=int, default=64)
    parser.add_argument("--model-size", choices=list(MODEL_SIZES), default="135M")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", choices=["group", "batch"], default="group", help="what advantages are divided by")
    parser.add_argument(
        "--set",
        nargs="*",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="other settings than the quickstart's",
    )
    given = parser.parse_args(arguments)
    workload = replace(
        WORKLOADS[given.workload],
        num_prompts=given.prompts,
        group_size=given.group_size,
        response_length=given.response_length,
        model_size=given.model_size,
        seed=given.seed,
    )
    changes = dict(change.split("=", 1) for change in given.set)
    student = open_student(workload, workload.settings(**{"combination.scale": given.scale} | changes))
    if given.system == "regroup":
        run_regroup(student)
    else:
        run_trl(student, given.micro_batch, given.bf16)


if __name__ == "__main__":
    main()
