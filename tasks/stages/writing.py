"""What writes the responses of evaluation and regeneration: the policy in this process, or vLLM servers that hold it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from configs.disk.files import read_jsonl
from configs.records import Policy
from configs.schema.config import Config
from grpo_train.policies.model import load_for_sampling, load_tokenizer, policy_stop_ids
from grpo_train.sampling.asked import Write
from grpo_train.sampling.generation import sample
from grpo_train.sampling.vllm.known import KnownToken
from grpo_train.sampling.vllm.policy_folder import giving
from grpo_train.sampling.vllm.post import Holding
from grpo_train.sampling.vllm.servers import PolicyServers
from reward_training.transformer.chat_template import PLAIN
from reward_training.transformer.precision import pick_device
from tasks.running.stage import Context
from tasks.runs.stage_files import KNOWN

WRITTEN_BY = tuple(
    f"grpo_config.{name}"
    for name in ("max_response_length", "generation_rows", "precision", "micro_batch_tokens", "vllm")
)
"""what of `grpo_config` decides how a policy's responses are written and scored where it is not trained"""


def load_frozen(config: Config, policy: Policy) -> PreTrainedModel:
    """A policy to score texts with."""
    return load_for_sampling(policy.path, config.grpo_config.precision, PLAIN)[0]


@contextmanager
def writing(config: Config, policy: Policy, context: Context) -> Iterator[Write]:
    """What writes as the policy does. Servers are given its folder, and no model is loaded here.

    Raises:
        ServerAway, ServerRefused, ServerDiffers: no server is there, takes the policy, or answers as it would.
    """
    vllm = config.grpo_config.vllm
    if vllm is None:
        model, tokenizer = load_for_sampling(policy.path, config.grpo_config.precision, config.template_settings)
        yield partial(sample, model, tokenizer)
        return
    folder = Path(policy.path)
    tokenizer = load_tokenizer(folder, config.template_settings)
    ends = policy_stop_ids(folder, tokenizer)
    with (
        giving(vllm, folder, policy.id, pick_device()) as give,
        PolicyServers(vllm, tokenizer, ends, warn=context.warn, should_stop=context.should_stop) as servers,
    ):
        servers.hold(Holding(version=policy.id, give=give, known=_known(folder)))
        yield servers.sample


def _known(folder: Path) -> list[KnownToken]:
    """The tokens that the policy's training scored at its end; none for a policy that Regroup did not train."""
    file = folder.parent / KNOWN
    return read_jsonl(file, KnownToken) if file.is_file() else []
