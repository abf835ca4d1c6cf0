"""Says how many tokens a model's positions allow, from its configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

FIELDS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "max_target_positions",
    "n_ctx",
)
"""names that configurations give to the number of positions"""
BY_LONGEST = ("dynamic", "longrope")
"""kinds of RoPE whose frequencies depend on the longest row of a batch, beyond the original number of positions"""
STRETCHED = ("linear", "yarn", "llama3")
"""kinds of RoPE that stretch the original number of positions by a factor"""


@dataclass(frozen=True)
class Positions:
    """The most tokens of a row, and the field of the model's configuration that says so."""

    num_tokens: int
    field: str
    reason: str
    """what happens beyond"""


def position_limit(config: PreTrainedConfig) -> Positions | None:
    """The limit of a model's positions; None if its configuration names none, as with models that keep a state."""
    text: Any = config.get_text_config()
    stated = next((name for name in FIELDS if _number(getattr(text, name, None))), None)
    if stated is None:
        return None
    num_tokens = int(getattr(text, stated))
    for rope in _ropes(text):
        kind, original = rope["rope_type"], _number(rope.get("original_max_position_embeddings"))
        if kind in BY_LONGEST:
            reason = f"beyond them its {kind} RoPE makes each row depend on the longest row beside it"
            return Positions(int(original or num_tokens), "original_max_position_embeddings", reason)
        if kind in STRETCHED:
            num_tokens = max(num_tokens, int((original or num_tokens) * (_number(rope.get("factor")) or 1)))
    return Positions(num_tokens, stated, "it never learned those beyond")


def _ropes(text: Any) -> Iterator[dict[str, Any]]:
    """The settings of each kind of RoPE in the model, of which some have one for each kind of layer."""
    parameters = getattr(text, "rope_parameters", None) or {}
    for settings in [parameters, *parameters.values()]:
        if isinstance(settings, dict) and "rope_type" in settings:
            yield settings


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and value > 0 else None
