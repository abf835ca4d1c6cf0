"""Which attention kernel to use."""

from __future__ import annotations

from transformers import PreTrainedModel

EAGER_UNTIL = 256
"""tokens; up to here plain matrix products are faster on a CPU than the fused kernel: a decoding step of 128 rows took 152 ms
against 238 ms, an update on 32 responses of 64 tokens 4.7 s against 5.4 s"""


def fit_attention(model: PreTrainedModel, num_tokens: int) -> None:
    """Set the model's attention for rows of up to `num_tokens`: plain products for short ones on a CPU, else torch's fused
    kernel. A model that was loaded with another one (flash attention) keeps it."""
    if model.device.type != "cpu" or model.config._attn_implementation not in ("eager", "sdpa"):
        return
    wanted = "eager" if num_tokens <= EAGER_UNTIL or not model._supports_sdpa else "sdpa"
    if model.config._attn_implementation != wanted:
        model.set_attn_implementation(wanted)
