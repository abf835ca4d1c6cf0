"""Checks that rewards and reward models are usable, and that each source is scored and promotion's metric measured."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from configs.errors import ConfigError, ServerAway
from configs.records import Problem
from configs.schema.config import OF_THE_CHECKER, Config
from configs.schema.methods.method import OF_POLICY, PpoMethod
from configs.schema.policy import ModelSource
from configs.schema.problems import ReasoningGymSource
from configs.schema.reward_models import FrozenRewardModel, ServedRewardModel
from configs.schema.rewards import (
    JudgeRewardConfig,
    ModelRewardConfig,
    OutcomeRewardConfig,
    ProcessRewardConfig,
    PythonRewardConfig,
)
from configs.schema.scopes import check_sources, metric_part, source_name, source_names
from flows.doctor.checks import Finding, reward_model_folder
from grpo_train.policies.model_source import BUILTIN, HUB_ID, is_model_folder, policy_folder
from reward_training.judges.client import JudgeClient
from reward_training.judges.judge import read_rubric
from reward_training.reward_models.backbone import check_backbone, check_classifier
from reward_training.reward_models.served import ServedScorer
from reward_training.rewards.python_forms import SIGNATURES, form_of, missing_columns
from reward_training.rewards.python_function import load_function
from reward_training.transformer.loading.adapters import refuse_adapter
from tasks.runs.workspace import models_folder, run_folder, served_file
from tasks.stages.value_model import refuse_other_tokens

HELD_OUT = {"dev", "test"}
PROBE_TIMEOUT_S = 30.0
"""long enough for a judge that loads its model at the first request"""


def check_rewards(config: Config) -> Iterator[Finding]:
    """Whether reward functions import, checkers fit the sources, judges answer, and the models of reward models exist."""
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
        elif isinstance(model, ServedRewardModel):
            yield _check_served(name, model, served_file(run_folder(Path.cwd(), config.run_name), name))
        elif model.backbone is not None:
            yield _check_backbone(name, model.backbone)


def _check_function(reward: PythonRewardConfig) -> Finding:
    name = f"reward {reward.name}"
    try:
        function = load_function(reward.function)
    except ConfigError as error:
        return Finding(name, "fail", str(error), "write module:function so that it imports from the current folder")
    try:
        form = form_of(function, reward.function)
    except ConfigError as error:
        return Finding(name, "fail", str(error), "see docs/choosing.md, A function")
    return Finding(name, "ok", f"{reward.function} imports, and is called as {SIGNATURES[form]}")


def check_columns(config: Config, problems: Sequence[Problem]) -> Iterator[Finding]:
    """Whether the problems have the columns that reward functions of TRL's form need."""
    for reward in [*config.rewards, *config.evaluation.rewards]:
        if not isinstance(reward, PythonRewardConfig):
            continue
        try:
            its_problems = [problem for problem in problems if reward.applies_to(problem.source)]
            missing = missing_columns(load_function(reward.function), reward.function, its_problems)
        except ConfigError:
            continue  # _check_function tells it
        for column, source in missing.items():
            detail = f"{reward.function} needs the column {column!r}, which problems of {source} lack"
            yield Finding(
                f"reward {reward.name}", "fail", detail, "add it to the data, or give the parameter a default"
            )


def _check_scorer(reward: OutcomeRewardConfig, config: Config) -> Iterator[Finding]:
    files = [source for source in config.problems.sources if not isinstance(source, ReasoningGymSource)]
    # the names of rows that a column tells are not known yet; the gold answers show whether they can be scored
    named = [source for source in files if source.columns.source is None]
    others = [str(source.path) for source in named if reward.applies_to(source_name(source))]
    if others:
        detail = f"checker reasoning_gym cannot score {', '.join(others)}"
        yield Finding(f"reward {reward.name}", "fail", detail, "use checker: exact or math")


def _check_judge(reward: JudgeRewardConfig) -> Finding:
    """Whether rubric and API key exist and the endpoint answers."""
    name = f"reward {reward.name}"
    try:
        read_rubric(reward)
        with closing(JudgeClient(reward.model_copy(update={"timeout_s": PROBE_TIMEOUT_S, "max_retries": 0}))) as client:
            failure = client.probe()
    except ConfigError as error:
        return Finding(name, "fail", str(error), "see docs/choosing.md, A judge")
    if failure is not None:
        detail = f"{reward.base_url} gives no reply for {reward.model!r}: {failure.reason}"
        return Finding(name, "fail", detail, "start the endpoint, or mend base_url, model or api_key_env")
    return Finding(name, "ok", f"{reward.model} at {reward.base_url} answers")


def _check_frozen(name: str, model: FrozenRewardModel) -> Finding:
    title, field = f"reward model {name}", f"reward_models.{name}.path"
    try:
        refuse_adapter(model.path, field)
        if is_model_folder(Path(model.path)):
            check_classifier(Path(model.path), field)
            return Finding(title, "ok", f"{model.path} is there")
    except ConfigError as error:
        return Finding(title, "fail", str(error))
    if not Path(model.path).exists() and HUB_ID.match(model.path):
        return Finding(title, "warn", f"{model.path} is no folder here", "a hub must be reachable for the first use")
    remedy = f"set {field} to a folder with config.json and safetensors, or to a hub id"
    return Finding(title, "fail", f"{model.path} holds no model", remedy)


def _check_served(name: str, model: ServedRewardModel, record: Path) -> Finding:
    """Whether the server answers, holds the model, takes our longest conversations, and scores known texts as `record` has it."""
    title = f"reward model {name}"
    asked = model.model_copy(update={"timeout_s": PROBE_TIMEOUT_S, "patience_s": 0.0})
    try:
        with ServedScorer(name, asked, record=record, keeps=False) as scorer:
            held = scorer.open()
    except (ConfigError, ServerAway) as error:
        return Finding(title, "fail", str(error))
    context = f", up to {held.max_length} tokens" if held.max_length is not None else ""
    detail = f"{held.model} at {held.url} answers{context}"
    if held.has_vocabulary:
        return Finding(title, "ok", detail)
    remedy = f"make sure yourself that it was trained with the tokenizer in {model.path}"
    return Finding(title, "warn", f"{detail}; it has no /tokenize, so its vocabulary was not compared", remedy)


def _check_backbone(name: str, backbone: ModelSource) -> Finding:
    title, field = f"reward model {name}", f"reward_models.{name}.backbone.path"
    try:
        folder = policy_folder(backbone, models_folder(Path.cwd()))
        refuse_adapter(folder, field)
        if is_model_folder(folder):
            check_backbone(folder, field)
    except ConfigError as error:
        return Finding(title, "fail", str(error).replace("policy.path", field))
    if is_model_folder(folder) or backbone.wheel is not None or backbone.path.startswith(BUILTIN):
        return Finding(title, "ok", f"begins from {backbone.path}")
    if Path(backbone.path).exists():
        remedy = f"set {field} to a folder with config.json and safetensors"
        return Finding(title, "fail", f"{backbone.path} holds no model", remedy)
    return Finding(
        title, "warn", f"{backbone.path} is no folder here", "a hub must be reachable; `regroup fetch` takes it"
    )


def check_value_model(config: Config, policy: Path, tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    """Whether a value model can be made of what the method names: its backbone is here, and has the policy's tokens."""
    method = config.method
    if not isinstance(method, PpoMethod):
        return
    try:
        if method.value_model == OF_POLICY:
            check_backbone(policy, "method.value_model")
        elif is_model_folder(folder := reward_model_folder(config, method.value_model, policy)):
            refuse_other_tokens(method.value_model, folder, tokenizer)
    except ConfigError as error:
        yield Finding("value model", "fail", str(error))
    else:
        yield Finding("value model", "ok", f"begins from {method.value_model}")


def check_scopes(config: Config, by_split: Mapping[str, Sequence[Problem]]) -> Iterator[Finding]:
    """Whether the rewards' sources are those of the problems, and each source is scored; what scores each, where there are
    several; and whether promotion's metric is measured on dev. `by_split` is {split: problems}."""
    counts = Counter(problem.source for problems in by_split.values() for problem in problems)
    measured = {problem.source for split in HELD_OUT for problem in by_split[split]}
    trained = {problem.source for split in by_split.keys() - HELD_OUT for problem in by_split[split]}
    try:
        if (
            source_names(config.problems) is None
        ):  # the names are in the data; others were checked with the configuration
            check_sources(config.rewards, config.evaluation.rewards, {name: name in trained for name in sorted(counts)})
    except ConfigError as error:
        yield Finding("sources", "fail", str(error))
        return
    if len(counts) > 1:
        yield Finding("sources", "ok", "; ".join(_scope(config, name, counts[name]) for name in sorted(counts)))
    yield _check_promotion_metric(config, {problem.source for problem in by_split["dev"]}, is_mixed=len(measured) > 1)


def _scope(config: Config, source: str, count: int) -> str:
    names = [reward.name for reward in [*config.rewards, *config.evaluation.rewards] if reward.applies_to(source)]
    checker = config.checker_of(source)
    right = f"right by {checker}" if checker else "without accuracy"
    return f"{source} {count:,}: {', '.join(names)} ({right})"


def _check_promotion_metric(config: Config, sources: Collection[str], *, is_mixed: bool) -> Finding:
    known = promotion_metrics(config, sources, is_mixed=is_mixed)
    if (model := _retrained_behind(config, config.promotion.metric)) is not None:
        detail = (
            f"promotion.metric={config.promotion.metric} is measured by reward model {model!r}, which each round trains anew: "
            "champion and challenger would have the scores of two models"
        )
        return Finding(
            "promotion", "fail", detail, "name a metric of a reward that stays, such as a frozen reward model"
        )
    if config.promotion.metric in known:
        return Finding("promotion", "ok", f"{config.promotion.rule} by {config.promotion.metric}")
    detail = f"promotion.metric={config.promotion.metric} is not measured"
    return Finding("promotion", "fail", detail, f"use one of {', '.join(known)}")


def _retrained_behind(config: Config, metric: str) -> str | None:
    """The trained reward model whose scores the metric is made of; None if there is none."""
    rewards = {reward.name: reward for reward in [*config.rewards, *config.evaluation.rewards]}
    names = config.checkers if metric.startswith(OF_THE_CHECKER) else [metric.partition("/")[2]]
    measured = [rewards[name] for name in names if name in rewards]
    checking = [r.checked_by for r in measured if isinstance(r, ProcessRewardConfig)]
    measured += [rewards[name] for name in checking if name in rewards]
    models = [reward.model for reward in measured if isinstance(reward, ModelRewardConfig)]
    return next((name for name in models if name in config.trained_reward_models), None)


def promotion_metrics(config: Config, sources: Collection[str], *, is_mixed: bool) -> list[str]:
    """The metrics that an evaluation measures on problems of `sources`: columns of results.jsonl.

    `is_mixed`: whether dev and test have more than one source.
    """
    num_samples = config.evaluation.num_samples
    powers = [2**i for i in range(num_samples.bit_length()) if 2**i <= num_samples]
    rewards = [*config.rewards, *config.evaluation.rewards]
    names = [reward.name for reward in rewards if any(reward.applies_to(source) for source in sources)]
    checked = [source for source in sorted(sources) if config.checker_of(source) is not None]
    of_checkers = ["at_fault_share", *(f"pass_at_{k}" for k in powers), f"maj_at_{num_samples}"]
    return [
        *(["greedy_accuracy"] if checked else []),
        *(f"greedy_accuracy/{metric_part(source)}" for source in checked if is_mixed),
        *("response_length", "truncated_share"),
        *(of_checkers if checked else []),
        *(f"{kind}/{name}" for name in names for kind in ("greedy", "sampled")),
    ]
