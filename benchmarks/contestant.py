"""One system in a process of its own: makes a training step for each line on standard input, and prints what it took.

python -m benchmarks.contestant regroup natural
python -m benchmarks.contestant trl fixed --micro-batch 16 --bf16
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.workloads import (
    GROUP_SIZE,
    NUM_PROMPTS,
    RESPONSE_LENGTH,
    ROUND,
    WORKLOADS,
    Workload,
    as_trl_rewards,
    in_order,
    open_model,
    open_rewards,
    settings,
    training_problems,
)
from configs.errors import StageStopped
from configs.records import Policy
from configs.schema import Config
from grpo_train.adapter import Adapter
from grpo_train.step import StepResult
from grpo_train.trainer import train
from tasks.allocator import reused_memory

MAX_STEPS = 64


@dataclass
class Referee:
    """Waits for the word to make a step, and tells how long it took."""

    started: float = field(default=0.0)

    def wait(self) -> bool:
        """Whether another step is wanted."""
        line = sys.stdin.readline()
        self.started = time.perf_counter()
        return line.strip() == "step"

    def tell(self, **facts: Any) -> None:
        facts["seconds"] = time.perf_counter() - self.started
        facts["peak_mb"] = peak_memory_mb()
        print(json.dumps(facts), flush=True)


def peak_memory_mb() -> float:
    """The most resident memory that this process has had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def run_regroup(workload: Workload, referee: Referee, config: Config) -> None:
    """Our loop, as `regroup run` calls it."""
    model, tokenizer = open_model(workload)
    base = Policy(path="", id="base", round=0)
    if config.grpo_config.lora is not None:
        Adapter(model, config.grpo_config.lora, seed=0)

    def on_step(result: StepResult) -> None:
        referee.tell(**result.metrics)

    try:
        with reused_memory():  # as every stage does
            train(
                model,
                tokenizer,
                training_problems(config, tokenizer),
                policy=base,
                initial_policy=base,
                rewards=open_rewards(workload, config),
                config=config,
                round=ROUND,
                on_step=on_step,
                should_stop=lambda: not referee.wait(),
            )
    except StageStopped:
        return


class _Steps(TrainerCallback):
    """TRL generates within its step, so this is the whole of it."""

    def __init__(self, referee: Referee) -> None:
        self.referee = referee

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if not self.referee.wait():
            raise StageStopped("no further step is wanted")

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.referee.tell()


def run_trl(
    workload: Workload, referee: Referee, config: Config, micro_batch: int, bf16: bool, response_length: int
) -> None:
    """TRL's GRPOTrainer on the same problems, in the same order."""
    model, tokenizer = open_model(workload)
    with TemporaryDirectory() as scratch:
        trainer = trl_trainer(
            workload,
            config,
            model,
            tokenizer,
            micro_batch=micro_batch,
            bf16=bf16,
            scratch=scratch,
            response_length=response_length,
        )
        trainer.add_callback(_Steps(referee))
        try:
            trainer.train()
        except StageStopped:
            return


def trl_trainer(
    workload: Workload,
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    micro_batch: int,
    bf16: bool,
    scratch: str,
    response_length: int = RESPONSE_LENGTH,
) -> GRPOTrainer:
    """TRL with the settings that ours has."""
    grpo = config.grpo_config
    problems = in_order(training_problems(config, tokenizer), config, MAX_STEPS)
    rewards = open_rewards(workload, config)
    rows = [{"prompt": problem.prompt, "key": problem.key} for problem in problems]
    arguments = GRPOConfig(
        output_dir=scratch,
        use_cpu=True,
        bf16=bf16,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=NUM_PROMPTS * GROUP_SIZE // micro_batch,
        num_generations=GROUP_SIZE,
        max_completion_length=response_length,
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
        scale_rewards="group",
        reward_weights=[reward.weight for reward in rewards],
        shuffle_dataset=False,
        activation_checkpointing=False,
        gradient_checkpointing=False,  # the old name; TRL sets it
        disable_dropout=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = GRPOTrainer(
        model=model,
        args=arguments,
        reward_funcs=list(as_trl_rewards(rewards, problems)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.pop_callback(PrinterCallback)
    return trainer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=["regroup", "trl"])
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--response-length", type=int, default=RESPONSE_LENGTH)
    given = parser.parse_args(arguments)
    workload, referee, config = WORKLOADS[given.workload], Referee(), settings()
    if given.system == "regroup":
        run_regroup(workload, referee, config)
    else:
        run_trl(workload, referee, config, given.micro_batch, given.bf16, given.response_length)


if __name__ == "__main__":
    main()
