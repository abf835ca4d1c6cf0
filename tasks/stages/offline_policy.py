"""The body of the stage that trains a policy, for methods whose samples are there before they train."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.disk.files import JOURNAL, Journal, JournalLine, read_jsonl
from configs.records import Problem
from configs.schema.config import DEFAULT_WATCH
from configs.seeds import seed_for
from grpo_train.methods.given_samples import Training
from grpo_train.observers.watch import Alarm, Watch
from grpo_train.policies.adapter import FOLDER, Adapter, carried_adapter
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.sampling.vllm.known import known_tokens
from grpo_train.train_result import TrainResult
from grpo_train.updating.response_logprobs import sequence_logprobs
from reward_training.transformer.precision import pick_device
from reward_training.transformer.rendering import encode_prompt
from reward_training.transformer.saving import try_saving
from tasks.running.stage import Context
from tasks.stages.lessons import Lesson, lesson_of
from tasks.stages.policy import PolicySpec, never_measured, what_now, write_result

NO_PASS_RATES = {"epoch": 0.0, "rates": {}}


def train_offline(
    spec: PolicySpec, out_dir: Path, context: Context, memory: Callable[[], dict[str, float]] = dict
) -> None:
    """Train the policy on what the method learns from in this round, as `train_on` does."""
    train_on(lesson_of(spec, out_dir, context), spec, out_dir, context, memory)


def train_on(
    lesson: Lesson, spec: PolicySpec, out_dir: Path, context: Context, memory: Callable[[], dict[str, float]] = dict
) -> None:
    """Train the policy on a lesson; `memory` measures the process's for the metrics of each step.

    Writes model/, the journal, result.json, curriculum.json and, with LoRA, adapter/. Where there is too little to learn
    from, the policy is saved as it is, and result.json says why.

    Raises:
        StageStopped: it was asked to stop at a step boundary.
        TrainingDiverged: loss or gradient was not finite; nothing is saved.
    """
    result = TrainResult(tokens=lesson.tokens, curriculum=spec.curriculum or NO_PASS_RATES, untrained=lesson.untrained)
    with _policy(spec, out_dir) as (model, tokenizer):
        if lesson.untrained is None:
            result = _train(model, tokenizer, lesson, spec, out_dir, context, result, memory)
        else:
            context.warn(f"round {spec.round}: {lesson.untrained}")
        result = replace(result, known=_known(model, tokenizer, spec))
    write_result(result, out_dir)


def _known(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: PolicySpec) -> list[dict[str, Any]]:
    """Tokens by which vLLM servers show that they hold the policy; none without servers."""
    grpo = spec.config.grpo_config
    if grpo.vllm is None:
        return []
    prompts = [encode_prompt(tokenizer, problem) for problem in read_jsonl(Path(spec.problems), Problem)]
    found = known_tokens(prompts, partial(sequence_logprobs, model, max_tokens=grpo.micro_batch_tokens))
    return [known.model_dump() for known in found]


@contextmanager
def _policy(spec: PolicySpec, out_dir: Path) -> Iterator[tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
    """The policy that training starts from, with an adapter if one is trained; what became of it is saved at the end."""
    lora = spec.config.grpo_config.lora
    base, carried = (lora and carried_adapter(spec.policy, lora)) or (spec.policy, None)
    model, tokenizer = load_policy(base.path, device=pick_device(), template=spec.config.template_settings)
    try_saving(model, tokenizer, out_dir)
    seed = seed_for(spec.config.seed, "adapter", round_index=spec.round)
    adapter = Adapter(model, lora, seed=seed, carried=carried) if lora else None
    yield model, tokenizer
    if adapter is not None:
        adapter.save(out_dir / FOLDER, base)
    save_policy(adapter.merge() if adapter else model, tokenizer, out_dir / "model", round_index=spec.round)


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lesson: Lesson,
    spec: PolicySpec,
    out_dir: Path,
    context: Context,
    result: TrainResult,
    memory: Callable[[], dict[str, float]],
) -> TrainResult:
    """Train in place; returns `result` with what training came to."""
    watching = _Watching(spec, out_dir, context, lesson.num_updates, memory)
    training = Training(
        grpo=spec.grpo,
        seed=spec.config.seed,
        round_index=spec.round,
        on_step=watching.on_step,
        should_stop=context.should_stop,
        should_end=watching.should_end,
        checkpoints=spec.checkpoints(out_dir, context.warn),
    )
    done, alarm = lesson.learn(model, tokenizer, training), watching.ended_by
    return replace(
        result,
        num_updates=done,
        stopped_by=None if alarm is None else str(alarm),
        extra_rounds=0 if alarm is None else alarm.rule.extra_rounds,
    )


# ---- watch rules ----------------------------------------------------------------------------------------------------


class _Watching:
    """Writes the journal, shows it to the watch rules, and ends training where one says so."""

    def __init__(
        self,
        spec: PolicySpec,
        out_dir: Path,
        context: Context,
        num_updates: int,
        memory: Callable[[], dict[str, float]],
    ) -> None:
        self.spec, self.context, self.num_updates, self.memory = spec, context, num_updates, memory
        self.journal = Journal(out_dir / JOURNAL)
        self.watch = Watch(spec.watch)
        self.ended_by: Alarm | None = None
        for step, metrics in steps_of(
            self.journal.read()
        ).items():  # those up to the checkpoint that training goes on from
            self.watch.examine(step, metrics)

    def on_step(self, step: int, metrics: dict[str, float]) -> None:
        metrics = metrics | self.memory()
        if step == 1:
            self._warn_of_never_measured(metrics)
        self.journal.write(step, metrics)
        alarms = self.watch.examine(step, metrics)
        self.ended_by = next((alarm for alarm in alarms if alarm.rule.action != "warn"), None)
        for alarm in alarms:
            self.context.warn(f"round {self.spec.round}, step {step}: {alarm}{what_now(alarm, self.spec)}")
        self.context.written()
        self.context.progress.set(step, total=self.num_updates, unit="updates")

    def _warn_of_never_measured(self, metrics: Collection[str]) -> None:
        """Of the rules that a configuration has by default, which look at a training that samples, nothing is said."""
        rules = [rule for rule in self.spec.watch if rule not in DEFAULT_WATCH]
        for told in never_measured(rules, metrics):
            self.context.warn(f"round {self.spec.round}: {told}")

    def should_end(self) -> bool:
        return self.ended_by is not None


def steps_of(lines: Sequence[JournalLine]) -> dict[int, dict[str, float]]:
    """{step: its metrics}, in the order of writing."""
    steps: dict[int, dict[str, float]] = {}
    for line in lines:
        steps.setdefault(line.step, {})[line.key] = line.value
    return steps
