"""Checks the chat templates: what a prompt looks like, what ends a response, and what a reward model gets to see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from transformers import AutoConfig, PreTrainedTokenizerBase

from configs.errors import ConfigError, TemplateRefusal
from configs.records import Message, PreferencePair, Problem, Prompt
from configs.schema.config import Config
from configs.schema.preferences import FileLabeler
from configs.schema.reward_models import RewardModel, ServedRewardModel, TrainedRewardModel
from flows.doctor.checks import Finding
from grpo_train.policies.model import load_tokenizer
from grpo_train.policies.model_source import is_model_folder, policy_folder
from reward_training.preferences.reading import read_preferences
from reward_training.reward_models import backbone
from reward_training.reward_models.distinct import distinct_pairs, too_long
from reward_training.reward_models.heads import refuse_without_head
from reward_training.transformer.chat_template import reads_date
from reward_training.transformer.rendering import (
    conversation_text,
    prompt_text,
    try_conversation_text,
    unwritten,
    unwritten_remedy,
)
from reward_training.transformer.turn_ends import turn_end
from tasks.runs.workspace import models_folder

THOUGHT, ANSWER = "regroupthought", "regroupanswer"
"""words that no template writes"""
TRIED_PAIRS = 512
"""pairs of a preference file that are rendered before a run"""
END = 60
"""characters of the end of a prompt that are shown"""


def check_policy_template(
    config: Config, folder: Path, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]
) -> Iterator[Finding]:
    """How prompts end, what the template does with variables, date and system messages, and what ends a response."""
    chats = [problem.prompt for problem in problems if not isinstance(problem.prompt, str)]
    if tokenizer.chat_template is None or not chats:
        return
    yield Finding("prompts", "ok", f"each ends with {prompt_text(tokenizer, chats[0])[-END:]!r}")
    yield from _check_variables(config, folder, chats[0])
    if reads_date(tokenizer):
        day = f"the run keeps {config.run.date}" if config.run.date else "the run keeps the day on which it starts"
        yield Finding("date", "ok", f"the chat template writes today's: {day} (run.date)")
    yield from _check_system(tokenizer, chats)
    yield from _check_turn_end(tokenizer)


def _check_variables(config: Config, folder: Path, prompt: list[Message]) -> Iterator[Finding]:
    """A warning for each variable that changes nothing, as one of another type or value than the template compares with."""
    settings = config.template_settings
    rendered = prompt_text(load_tokenizer(folder, settings), prompt)
    for name, value in settings.variables.items():
        others = {other: given for other, given in settings.variables.items() if other != name}
        without = load_tokenizer(folder, settings.model_copy(update={"variables": others}))
        title = f"template variable {name}"
        if prompt_text(without, prompt) != rendered:
            yield Finding(title, "ok", f"{value!r} changes the prompt")
        else:
            remedy = "see chat_template.jinja for the values that it reads, or drop the variable"
            yield Finding(title, "warn", f"{value!r} changes nothing in the first prompt", remedy)


def _check_system(tokenizer: PreTrainedTokenizerBase, chats: Iterable[list[Message]]) -> Iterator[Finding]:
    """A warning for the first message, the system's or another, that the template does not write."""
    for prompt in _shapes(chats):
        lost = unwritten(prompt_text(tokenizer, prompt), prompt)
        if lost:
            role, content = lost[0]["role"], lost[0]["content"][:END]
            detail = f"the chat template does not write the {role} message {content!r} as it is"
            yield Finding(f"{role} message", "warn", detail, unwritten_remedy(tokenizer, lost))
            return


def _check_turn_end(tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    end = turn_end(tokenizer)
    if end is None:
        return
    if end.token is not None:
        yield Finding("turn end", "ok", f"{end.text!r} ends a response")
        return
    detail = f"the chat template ends a turn by plain text, {end.text!r}, which ends no response; only {tokenizer.eos_token!r} does"
    remedy = (
        f"make sure that the model writes {tokenizer.eos_token!r} after an answer (end turns with it in chat_template.jinja, "
        "and fine-tune on that first); else each response goes on to the length limit"
    )
    yield Finding("turn end", "warn", detail, remedy)


# ---- reward models --------------------------------------------------------------------------------------------------


def check_reward_model_templates(
    config: Config, policy: Path, problems: Sequence[Problem], workspace: Path
) -> Iterator[Finding]:
    """Whether a reward model can be made of its base, and what its chat template does with conversations like ours."""
    asked = [problem.prompt for problem in problems]
    for name, model in config.reward_models.items():
        folder = _base(model, policy, workspace)
        if folder is None:
            continue  # on a hub, and not here yet
        try:
            if isinstance(model, TrainedRewardModel):
                refuse_without_head(AutoConfig.from_pretrained(str(folder)))
            tokenizer = backbone.load_tokenizer(folder, config.template_settings)
            pairs = _pairs_of_file(name, model)
        except ConfigError as error:
            yield Finding(f"reward model {name}", "fail", str(error))
            continue
        except (OSError, ValueError):
            continue  # check_model and check_rewards tell it
        yield from _check_conversations(name, tokenizer, [*asked, *(pair.prompt for pair in pairs)])
        if isinstance(model, TrainedRewardModel):
            yield from _check_distinct(name, tokenizer, pairs[:TRIED_PAIRS])
            yield from _check_lengths(name, model, tokenizer, [pair for pair in pairs if pair.split == "train"])


def _base(model: RewardModel, policy: Path, workspace: Path) -> Path | None:
    """The folder that the reward model is loaded from or begins from, if it is on this machine."""
    if not isinstance(model, TrainedRewardModel):
        folder = Path(model.path)
    elif model.backbone is None:
        folder = policy
    else:
        try:
            folder = policy_folder(model.backbone, models_folder(workspace))
        except ConfigError:
            return None  # check_rewards tells it
    is_here = is_model_folder(folder) or (isinstance(model, ServedRewardModel) and folder.is_dir())
    return folder if is_here else None


def _pairs_of_file(name: str, model: RewardModel) -> list[PreferencePair]:
    """The pairs of the labeler's file; none where there is no such file, or it is faulty (`check_pairs` tells that)."""
    if not isinstance(model, TrainedRewardModel) or not isinstance(model.labeler, FileLabeler):
        return []
    try:
        return read_preferences(model.labeler, name=name, config=model, round_index=0).pairs
    except ConfigError:
        return []


def _check_conversations(name: str, tokenizer: PreTrainedTokenizerBase, prompts: Iterable[Prompt]) -> Iterator[Finding]:
    title = f"template of {name}"
    chats = _shapes(prompt for prompt in prompts if not isinstance(prompt, str))
    if tokenizer.chat_template is None or not chats:
        return
    lost: list[Message] = []
    for prompt in chats:
        try:
            text = conversation_text(tokenizer, prompt, ANSWER)
        except TemplateRefusal as error:
            yield Finding(title, "fail", str(error))
            return
        lost += unwritten(text, prompt)
        if ANSWER not in text or any(message["role"] == "user" for message in lost):
            detail = f"the chat template of {tokenizer.name_or_path} does not write all questions and answers"
            yield Finding(title, "fail", detail, "take a model whose template writes them")
            return
    if lost:
        role, content = lost[0]["role"], lost[0]["content"][:END]
        detail = f"its chat template does not write the {role} message {content!r}: it does not see it"
        yield Finding(title, "warn", detail, unwritten_remedy(tokenizer, lost))
    thought = try_conversation_text(tokenizer, chats[0], f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}")
    if thought is not None and THOUGHT not in thought:
        detail = "its chat template strips thoughts: it sees answers alone, and pairs that differ only in thoughts are left out"
        remedy = "set backbone.path (or path) to a model whose template keeps them, if they should count"
        yield Finding(title, "warn", detail, remedy)
    if try_conversation_text(tokenizer, chats[0], "") is None:
        remedy = (
            "nothing to do where the policy writes none; such a response is unscored (combination.max_unscored_share)"
        )
        yield Finding(title, "warn", "its chat template does not take an empty response", remedy)


def _check_distinct(
    name: str, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair]
) -> Iterator[Finding]:
    """What the chat template does to the first pairs of a preference file."""
    found = distinct_pairs(tokenizer, pairs)
    if found.left_out:
        remedy = f"reward_models.{name} learns from the others alone" if found.ids else ""
        yield Finding(f"pairs of {name}", "warn" if found.ids else "fail", found.told, remedy)
    if found.unwritten:
        yield Finding(f"prompts of {name}", "warn", found.unwritten)


def _check_lengths(
    name: str, model: TrainedRewardModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair]
) -> Iterator[Finding]:
    """A warning where some of the first training pairs of a preference file are too long, a failure where all pairs are."""
    ids = distinct_pairs(tokenizer, pairs[:TRIED_PAIRS]).ids
    if not any(pair.fits(model.max_length) for pair in ids):
        ids = distinct_pairs(tokenizer, pairs).ids
    if detail := too_long(ids, model.max_length, name):
        is_learned_from = any(pair.fits(model.max_length) for pair in ids)
        yield Finding(f"lengths of {name}", "warn" if is_learned_from else "fail", detail)


def _shapes(prompts: Iterable[Prompt]) -> list[list[Message]]:
    """The first prompt of each sequence of roles."""
    first: dict[tuple[str, ...], list[Message]] = {}
    for prompt in prompts:
        if not isinstance(prompt, str):
            first.setdefault(tuple(message["role"] for message in prompt), prompt)
    return list(first.values())
