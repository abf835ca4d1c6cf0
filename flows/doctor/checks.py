"""What the doctor looks at, one function a subject: each returns what it found and, where it is wrong, the remedy."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from safetensors import safe_open
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from configs.errors import ConfigError
from configs.records import Completion, Problem
from configs.schema.config import Config
from configs.schema.policy import PolicyConfig
from configs.schema.problems import ReasoningGymSource
from configs.schema.reward_models import FileLabeler, FrozenRewardModel, PeopleLabeler, TrainedRewardModel
from configs.schema.rewards import JudgeRewardConfig, OutcomeRewardConfig, PythonRewardConfig
from grpo_train.policies.model_source import BUILTIN, HUB_ID, is_model_folder, policy_folder
from grpo_train.sampling.vllm_engine import VllmEngine
from grpo_train.trainer import num_steps
from reward_training.judges.client import JudgeClient
from reward_training.judges.judge import read_rubric
from reward_training.pairs.preferences import read_preferences
from reward_training.rewards.outcome import IN_POOL
from reward_training.rewards.python_function import load_function
from reward_training.scorer import build_rewards, score
from reward_training.transformer.precision import autocast_dtype, pick_device
from reward_training.transformer.token_logprobs import CHUNK
from tasks.runs.workspace import models_folder

GB = 1e9
TRAINING_BYTES = 16
"""a parameter: weight, gradient and two moments of AdamW, float32 each"""
SAVED_BYTES = 4
CHECKPOINT_BYTES = 12
"""a parameter: weight and two moments of AdamW"""
LOGIT_COPIES = 3
"""float32 arrays as large as a chunk of logits that a backward pass holds: product, float32 copy, gradient"""
ACTIVATION_BYTES = 34
"""a token, layer and unit of width, at two bytes a number (arXiv 2205.05198, section 4.1, without the attention scores)"""
VLLM_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 30.0
"""a judge's first reply may wait for its model to load"""
GOLD_SAMPLE = 16
"""problems of each source whose gold answer is checked"""
SMALL_SPLIT = 64
"""problems under which a 95% interval of an accuracy near one half is wider than 0.12 to each side"""


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


# ---- model ----------------------------------------------------------------------------------------------------------


def check_model(folder: Path) -> Check:
    """Whether the configuration of the model can be read, and how large it is."""
    try:
        settings = AutoConfig.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        return Check("model", "fail", str(error), "save the model with save_pretrained")
    millions = num_parameters(folder) / 1e6
    return Check("model", "ok", f"{folder.name}: {settings.model_type}, {millions:,.1f} M parameters")


def num_parameters(folder: Path) -> int:
    """Numbers in the folder's safetensors, from their headers."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), framework="pt") as weights:
            total += sum(torch.Size(weights.get_slice(key).get_shape()).numel() for key in weights.keys())  # noqa: SIM118
    return total


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Iterator[Check]:
    yield Check("tokenizer", "ok", f"{len(tokenizer):,} tokens, ends with {tokenizer.eos_token!r}")
    if tokenizer.chat_template is None:
        remedy = "use an instruction-tuned model, or put the turns into problems.template"
        yield Check("chat template", "warn", "none: prompts are plain text", remedy)
    else:
        yield Check("chat template", "ok", "there")


# ---- rewards --------------------------------------------------------------------------------------------------------


def check_rewards(config: Config) -> Iterator[Check]:
    """Functions import, frozen reward models are there, checkers fit the sources."""
    for reward in [*config.rewards, *config.evaluation.rewards]:
        if isinstance(reward, PythonRewardConfig):
            yield _check_function(reward)
        if isinstance(reward, OutcomeRewardConfig) and reward.checker == "reasoning_gym":
            yield from _check_scorer(reward, config)
        if isinstance(reward, JudgeRewardConfig):
            yield _check_judge(reward)
    for name, model in config.reward_models.items():
        if isinstance(model, FrozenRewardModel):
            yield _check_frozen(name, model)
        elif model.backbone is not None:
            yield _check_backbone(name, model.backbone)
    yield _check_promotion_metric(config)


def _check_function(reward: PythonRewardConfig) -> Check:
    name = f"reward {reward.name}"
    try:
        load_function(reward.function)
    except ConfigError as error:
        return Check(name, "fail", str(error), "write module:function so that it imports from the current folder")
    return Check(name, "ok", f"{reward.function} imports")


def _check_scorer(reward: OutcomeRewardConfig, config: Config) -> Iterator[Check]:
    others = [source.path for source in config.problems.sources if not isinstance(source, ReasoningGymSource)]
    if others:
        detail = f"checker reasoning_gym cannot score {', '.join(others)}"
        yield Check(f"reward {reward.name}", "fail", detail, "use checker: exact or math_verify")


def _check_judge(reward: JudgeRewardConfig) -> Check:
    """Whether rubric and key are there and the endpoint answers."""
    name = f"reward {reward.name}"
    try:
        read_rubric(reward)
        with closing(JudgeClient(reward.model_copy(update={"timeout_s": PROBE_TIMEOUT_S, "max_retries": 0}))) as client:
            failure = client.probe()
    except ConfigError as error:
        return Check(name, "fail", str(error), "see docs/choosing.md, A judge")
    if failure is not None:
        detail = f"{reward.base_url} gives no reply for {reward.model!r}: {failure.reason}"
        return Check(name, "fail", detail, "start the endpoint, or mend base_url, model or api_key_env")
    return Check(name, "ok", f"{reward.model} at {reward.base_url} answers")


def _check_frozen(name: str, model: FrozenRewardModel) -> Check:
    title = f"reward model {name}"
    if is_model_folder(Path(model.path)):
        return Check(title, "ok", f"{model.path} is there")
    if not Path(model.path).exists() and HUB_ID.match(model.path):
        return Check(title, "warn", f"{model.path} is no folder here", "a hub must be reachable for the first use")
    remedy = f"set reward_models.{name}.path to a folder with config.json and safetensors, or to a hub id"
    return Check(title, "fail", f"{model.path} holds no model", remedy)


def _check_backbone(name: str, backbone: PolicyConfig) -> Check:
    title, field = f"reward model {name}", f"reward_models.{name}.backbone.path"
    try:
        folder = policy_folder(backbone, models_folder(Path.cwd()))
    except ConfigError as error:
        return Check(title, "fail", str(error).replace("policy.path", field))
    if is_model_folder(folder) or backbone.wheel is not None or backbone.path.startswith(BUILTIN):
        return Check(title, "ok", f"begins from {backbone.path}")
    if Path(backbone.path).exists():
        remedy = f"set {field} to a folder with config.json and safetensors"
        return Check(title, "fail", f"{backbone.path} holds no model", remedy)
    return Check(
        title, "warn", f"{backbone.path} is no folder here", "a hub must be reachable; `regroup fetch` takes it"
    )


def _check_promotion_metric(config: Config) -> Check:
    known = promotion_metrics(config)
    if config.promotion.metric in known:
        return Check("promotion", "ok", f"{config.promotion.rule} by {config.promotion.metric}")
    detail = f"promotion.metric={config.promotion.metric} is not measured"
    return Check("promotion", "fail", detail, f"use one of {', '.join(known)}")


def promotion_metrics(config: Config) -> list[str]:
    """The columns of results.jsonl that an evaluation always has."""
    num_samples = config.evaluation.num_samples
    powers = [2**i for i in range(num_samples.bit_length()) if 2**i <= num_samples]
    names = [reward.name for reward in [*config.rewards, *config.evaluation.rewards]]
    return [
        *("greedy_accuracy", "response_length", "truncated_share"),
        *(f"pass_at_{k}" for k in powers),
        f"maj_at_{num_samples}",
        *(f"{kind}/{name}" for name in names for kind in ("greedy", "sampled")),
    ]


def check_gold_answers(config: Config, problems: Sequence[Problem], *, quick: bool) -> Iterator[Check]:
    """Whether each outcome reward says of the gold answers that they are right; `quick` leaves out slow checkers."""
    rewards = [r for r in [*config.rewards, *config.evaluation.rewards] if isinstance(r, OutcomeRewardConfig)]
    asked = [reward for reward in rewards if not quick or reward.checker not in IN_POOL]
    sample = _sample_by_source([problem for problem in problems if problem.answer])
    if not asked or not sample:
        return
    with build_rewards(asked, {}) as built:
        for settings, reward in zip(asked, built, strict=True):
            scores = score(sample, [_gold(problem, settings) for problem in sample], [reward])
            right = [(row.parts[reward.name] or 0.0) >= 1.0 for row in scores]
            yield _judge_gold(settings, sample, right)


def _sample_by_source(problems: Sequence[Problem]) -> list[Problem]:
    by_source: dict[str, list[Problem]] = {}
    for problem in problems:
        by_source.setdefault(problem.source, []).append(problem)
    return [problem for members in by_source.values() for problem in members[:GOLD_SAMPLE]]


def _gold(problem: Problem, reward: OutcomeRewardConfig) -> Completion:
    return Completion(
        problem_key=problem.key,
        index=0,
        prompt_ids=[],
        token_ids=[],
        text=written_as_asked(problem.answer, reward),
        finish_reason="stop",
        logprobs=[],
        policy_id="gold",
        step=0,
        seed=0,
    )


def written_as_asked(answer: str, reward: OutcomeRewardConfig) -> str:
    """An answer where the reward looks for it."""
    match reward.extract:
        case "tag":
            return f"<{reward.tag}>{answer}</{reward.tag}>"
        case "boxed":
            return f"\\boxed{{{answer}}}"
        case "hash":
            return f"#### {answer}"
        case "answer_is" | "final":
            return f"The answer is {answer}"
        case "json":
            return json.dumps({reward.field: answer})
        case "last_number" | "whole":
            return answer


def _judge_gold(reward: OutcomeRewardConfig, problems: Sequence[Problem], right: Sequence[bool]) -> Check:
    name = f"gold answers, {reward.name}"
    wrong = [problem for problem, is_right in zip(problems, right, strict=True) if not is_right]
    if not wrong:
        return Check(name, "ok", f"{len(problems)} of {len(problems)} pass")
    detail = f"{len(wrong)} of {len(problems)} fail, for instance {wrong[0].answer[:60]!r} of {wrong[0].source}"
    remedy = f"extract: {reward.extract} with checker: {reward.checker} does not fit these answers; change either"
    return Check(name, "fail" if 2 * len(wrong) > len(problems) else "warn", detail, remedy)


# ---- arithmetic -----------------------------------------------------------------------------------------------------


def check_launcher(config: Config) -> Iterator[Check]:
    """Whether accelerate's own configuration is there, where one is named."""
    file = config.launcher.config_file
    if file is not None and not Path(file).is_file():
        yield Check(
            "launcher", "fail", f"no file {file}", "write it with `accelerate config`, or drop launcher.config_file"
        )


def check_vllm(config: Config) -> Iterator[Check]:
    """Whether the server that is to write training's responses answers, and can be sent weights, where one is named."""
    if config.grpo_config.vllm is None:
        return
    if pick_device().type != "cuda":
        yield Check(
            "vllm", "fail", "its weights are sent over NCCL, and the trainer has no GPU", "drop grpo_config.vllm"
        )
        return
    wanted = config.grpo_config.vllm.model_copy(update={"connection_timeout_s": VLLM_TIMEOUT_S})
    try:
        VllmEngine(wanted, set())
    except ConfigError as error:
        yield Check("vllm", "fail", str(error), "start the server before the run: docs/choosing.md says how")
    else:
        yield Check("vllm", "ok", f"{wanted.base_url} answers")


def check_batches(config: Config, num_train: int) -> Check:
    """A batch's problems are there, and how many updates a round makes."""
    grpo = config.grpo_config
    per_batch = grpo.batch_size // grpo.group_size
    if num_train < per_batch:
        detail = f"a batch asks {per_batch} problems (batch_size / group_size) and {num_train} are left to train on"
        return Check("batches", "fail", detail, "lower grpo_config.batch_size, or add problems")
    updates = num_steps(grpo, num_train) * grpo.updates_per_batch
    passes = num_steps(grpo, num_train) * per_batch / num_train
    detail = (
        f"{updates} updates a round on {per_batch} problems x {grpo.group_size}; {passes:.2f} of {num_train} problems"
    )
    return Check("batches", "ok", detail)


def check_splits(config: Config, counts: dict[str, int]) -> Iterator[Check]:
    sizes = ", ".join(f"{name} {counts[name]}" for name in ("train", "dev", "test"))
    shards = f"{config.rounds + 1} shards of {config.regeneration.num_problems}"
    names = ("duplicates", "overlong", "unmatched", "overlap_exact", "overlap_ngram")
    dropped = ", ".join(f"{name} {counts[name]}" for name in names if counts[name]) or "nothing"
    yield Check("problems", "ok", f"{sizes}, {shards}; left out: {dropped}")
    for name in ("dev", "test"):
        if counts[name] < SMALL_SPLIT:
            detail = f"{counts[name]} problems tell an accuracy to within {0.98 / counts[name] ** 0.5:.2f} only"
            yield Check(f"split {name}", "warn", detail, f"raise problems.{name} for figures that mean something")


def check_pairs(config: Config) -> Iterator[Check]:
    """Whether regeneration, or the file that labels, can give as many pairs as each reward model asks for."""
    for name, model in config.trained_reward_models.items():
        if isinstance(model.labeler, FileLabeler):
            yield _check_preferences(name, model, model.labeler)
            continue
        most = config.regeneration.num_problems * model.pairs_per_problem
        source = "regeneration.num_problems"
        if isinstance(model.labeler, PeopleLabeler) and model.labeler.otherwise is None:
            most, source = (
                min(most, model.labeler.num_items),
                f"reward_models.{name}.labeler.num_items, or set its otherwise",
            )
        most = int(most * (1 - model.held_out_share))
        title = f"reward model {name}"
        if min(most, model.max_pairs) < model.min_pairs:
            detail = (
                f"min_pairs={model.min_pairs}, but a round gives at most {min(most, model.max_pairs)} training pairs"
            )
            yield Check(title, "fail", detail, f"lower reward_models.{name}.min_pairs or raise {source}")
        else:
            yield Check(title, "ok", f"at most {min(most, model.max_pairs)} training pairs a round")


def _check_preferences(name: str, model: TrainedRewardModel, labeler: FileLabeler) -> Check:
    title = f"reward model {name}"
    try:
        pairs = read_preferences(labeler, name=name, config=model, round=0)
    except ConfigError as error:
        return Check(title, "fail", str(error))
    num_train = sum(pair.split == "train" for pair in pairs)
    detail = f"{labeler.path}: {num_train} training and {len(pairs) - num_train} held-out pairs"
    if num_train < model.min_pairs:
        return Check(title, "fail", f"{detail}, under min_pairs={model.min_pairs}", "add pairs, or lower min_pairs")
    return Check(title, "ok", detail)


# ---- memory and disk ------------------------------------------------------------------------------------------------


def check_memory(config: Config, folder: Path) -> Check:
    device = pick_device()
    settings = AutoConfig.from_pretrained(str(folder))
    low_precision = autocast_dtype(config.grpo_config.precision, device) is not None
    needed = sum(memory_needed(config, num_parameters(folder), settings, low_precision=low_precision).values())
    available, total = _memory(device)
    detail = (
        f"about {needed / GB:.1f} GB to train on {device.type}; {available / GB:.1f} of {total / GB:.1f} GB are free"
    )
    remedy = "lower grpo_config.micro_batch_tokens, generation_rows or max_response_length, or take a smaller model"
    if needed > total:
        return Check("memory", "fail", detail, remedy)
    return Check("memory", "warn" if needed > available else "ok", detail, remedy if needed > available else "")


def memory_needed(
    config: Config, num_parameters: int, settings: PretrainedConfig, *, low_precision: bool
) -> dict[str, float]:
    """Bytes that training takes, by purpose: weights, copies that sample or compare, key-value cache, activations, logits."""
    grpo = config.grpo_config
    text: Any = settings.get_text_config()
    width = 2 if low_precision else 4
    num_copies = int(low_precision) + int(grpo.kl_coefficient > 0) + int(grpo.monitor_kl_every > 0)
    tokens = config.problems.max_prompt_length + grpo.max_response_length
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    rows = min(grpo.generation_rows, grpo.batch_size)
    passed = max(grpo.micro_batch_tokens, tokens)
    return {
        "training": float(TRAINING_BYTES * num_parameters),
        "copies": float(width * num_parameters * num_copies),
        "cache": float(2 * text.num_hidden_layers * heads * head_width * rows * tokens * width),
        "activations": float(ACTIVATION_BYTES * passed * text.hidden_size * text.num_hidden_layers * width / 2),
        "logits": float(LOGIT_COPIES * CHUNK * text.vocab_size * 4),
    }


def _memory(device: torch.device) -> tuple[float, float]:
    """(free, all) bytes of the device, within the limit of the control group where there is one."""
    if device.type == "cuda":
        on_device: tuple[int, int] = torch.cuda.mem_get_info(device)
        return float(on_device[0]), float(on_device[1])
    memory = psutil.virtual_memory()
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    total = float(memory.total) if text == "max" else min(float(text), float(memory.total))
    return min(float(memory.available), total), total


def check_disk(config: Config, folder: Path, workspace: Path) -> Check:
    num_models = config.max_rounds * (1 + len(config.trained_reward_models)) + 1
    distances = [config.grpo_config.save_steps, *(model.save_steps for model in config.trained_reward_models.values())]
    # one more while it is written
    num_checkpoints = config.keep_checkpoints + 1 if any(distances) else 0
    needed = (num_models * SAVED_BYTES + num_checkpoints * CHECKPOINT_BYTES) * num_parameters(folder)
    free = shutil.disk_usage(workspace).free
    what = f"{num_models} models and {num_checkpoints} checkpoints"
    detail = f"about {needed / GB:.2f} GB for {what}; {free / GB:.1f} GB are free"
    if needed > free:
        return Check("disk", "fail", detail, "free space, lower rounds, or work in a folder on another disk")
    return Check("disk", "ok", detail)
