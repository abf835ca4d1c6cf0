"""What a cold start goes over: demonstrations from a file, or the best of the policy's own responses."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from configs.disk.files import JOURNAL, Journal, read_jsonl
from configs.records import Problem
from configs.schema.methods.cold_start import DemonstrationsConfig
from grpo_train.methods.demonstrations import read_demonstrations
from grpo_train.methods.given_samples import num_updates
from grpo_train.policies.model import load_tokenizer
from tasks.running.stage import Context
from tasks.stages.cold_start.stage import ColdStartSpec
from tasks.stages.lessons import Lesson, best_lesson, learn_responses
from tasks.stages.offline_policy import train_on


def learn(spec: ColdStartSpec, out_dir: Path, context: Context) -> None:
    """Fine-tune the policy and write what the stage's body does."""
    demonstrations = spec.cold.demonstrations
    if demonstrations is None:
        lesson = best_lesson(spec, spec.method, out_dir, context)
    else:
        lesson = _demonstrated(spec, demonstrations, out_dir, context)
    train_on(lesson, spec, out_dir, context)


def _demonstrated(spec: ColdStartSpec, settings: DemonstrationsConfig, out_dir: Path, context: Context) -> Lesson:
    context.progress.say("reading the demonstrations")
    cold, journal = spec.cold, Journal(out_dir / JOURNAL)
    read = read_demonstrations(
        settings,
        spec.config.problems,
        load_tokenizer(spec.policy.path, spec.config.template_settings),
        [problem for path in spec.held_out for problem in read_jsonl(Path(path), Problem)],
        max_response_length=spec.grpo.max_response_length,
    )
    if not journal.read():  # a training that goes on has told
        num_kept, num_tokens = float(len(read.kept)), float(sum(len(one.token_ids) for one in read.kept))
        left_out = {f"demonstrations/left_out/{reason}": float(count) for reason, count in read.left_out.items()}
        journal.write(0, {"demonstrations/kept": num_kept, "demonstrations/tokens": num_tokens} | left_out)
        if read.left_out:
            context.warn(f"cold start: {len(read.kept):,} demonstrations are imitated; left out: {read.told}")
    return Lesson(
        learn=partial(learn_responses, read.kept, cold.epochs, cold.batch_size),
        num_updates=num_updates(cold.epochs * len(read.kept), cold.batch_size),
        tokens={},
    )
