"""The block `grpo_config`: the loss and the optimiser, sampling, early stop, and the response cache."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.schema.block import Block, Name, PositiveFloat, PositiveInt, SaveSteps, Share, Temperature, TopK, TopP
from configs.schema.lora import LoraSettings


class LoopStop(Block):
    """Ends a response whose last tokens are copies of one block."""

    max_period: PositiveInt = Field(32, description="longest block that is looked for, tokens")
    repeats: Annotated[int, Field(ge=2)] = Field(4, description="copies of the block in a row")
    min_tokens: PositiveInt = Field(
        32, description="tokens of the copies together, so that a row of dashes in a table is no loop"
    )


class UnfinishableStop(Block):
    """Ends a response that can no longer write what a complete one holds."""

    must_contain: str = Field(min_length=1, description="literal text of a complete response, for instance `</think>`")
    needs: PositiveInt | None = Field(
        None,
        description="tokens that writing it, and what follows, takes: a response without it ends when fewer are left; "
        "default: its own tokens and the end of sequence, which stops what is certain and saves little",
    )


class LowScoreStop(Block):
    """Ends a response whose text so far scores low."""

    reward: Name = Field(description="reward of kind reward_model or python that scores the text so far")
    every: PositiveInt = Field(128, description="tokens between two looks")
    below: Annotated[float, Field(allow_inf_nan=False)] = Field(description="in the reward's units, before its weight")


class EarlyStopConfig(Block):
    """Ends hopeless responses while they are written, in training alone; each criterion is off until its block stands."""

    loop: LoopStop | None = Field(None, description="responses that loop; `{}` turns it on with its defaults")
    unfinishable: UnfinishableStop | None = Field(None, description="responses that cannot finish any more")
    low_score: LowScoreStop | None = Field(None, description="responses that a reward scores under a bound")
    aborted: Literal["score", "leave_out"] = Field(
        "score",
        description="what such a response is to its group: scored as it stands, or left out of baseline and loss",
    )

    @property
    def is_on(self) -> bool:
        return any((self.loop, self.unfinishable, self.low_score))

    @property
    def first_looks(self) -> dict[str, int]:
        """Tokens that each criterion needs to see, or to have left, before it can stop a response."""
        looks = {
            "loop.min_tokens": self.loop.min_tokens if self.loop else None,
            "unfinishable.needs": self.unfinishable.needs if self.unfinishable else None,
            "low_score.every": self.low_score.every if self.low_score else None,
        }
        return {name: number for name, number in looks.items() if number is not None}


class ResponseCacheConfig(Block):
    """Good responses of earlier steps used again when their problem is asked again, instead of sampling as many."""

    share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="most of a group's responses that come from the cache; 0 is off"
    )
    size: PositiveInt = Field(1024, description="responses kept; the oldest leave first")
    max_age: PositiveInt = Field(16, description="steps for which a response is kept")
    min_effective_share: Share = Field(
        0.5,
        description="least effective sample size of a batch's cached responses, as a share of their number; those farthest "
        "off the policy are dropped until it holds; 0 is off",
    )

    def num_rows(self, group_size: int) -> int:
        """Most responses of a group that come from the cache."""
        return int(self.share * group_size + 1e-9)


KlEstimator = Literal["k1", "k2", "k3"]


class LoraConfig(LoraSettings):
    """Train a low-rank adapter (arXiv 2106.09685) in place of all weights."""

    between_rounds: Literal["merge", "carry_on"] = Field(
        "merge",
        description="each round starts a new adapter on the merged champion, so that ranks add up; or trains the champion's "
        "adapter on",
    )


class VllmConfig(Block):
    """A vLLM server that writes the responses of training, through TRL's client; its weights are kept in step over NCCL."""

    base_url: str = Field("http://127.0.0.1:8000", pattern="^https?://", description="of the server")
    group_port: PositiveInt = Field(51216, description="port of the group over which weights are sent")
    connection_timeout_s: PositiveFloat = Field(120.0, description="how long to wait for the server")
    max_importance_weight: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        2.0,
        description="bound on the weight that makes up for the server's rounding: trainer's over server's probability",
    )


class GrpoConfig(Block):
    """Group Relative Policy Optimization (arXiv 2402.03300) and its relatives."""

    group_size: int = Field(8, description="completions per problem")
    loss: Literal["grpo", "dapo", "bnpo", "dr_grpo", "gspo", "cispo"] = Field(
        "grpo",
        description="mean within each response, then over responses (grpo); over all tokens (dapo, bnpo); over a constant "
        "(dr_grpo); one ratio a response (gspo); clipped weights that keep every token's gradient (cispo)",
    )
    clip_range: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="epsilon of the clipped ratio; `gspo` wants about 3e-4, `cispo` has no lower bound"
    )
    clip_range_high: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="epsilon upwards where it differs (DAPO: 0.28); default: clip_range"
    )
    dual_clip: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="bound on the ratio of responses with negative advantage, for instance 3; default: none"
    )
    learning_rate: PositiveFloat = Field(1e-6, description="of AdamW")
    batch_size: PositiveInt = Field(512, description="responses per update, a multiple of group_size")
    kl_coefficient: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="weight of the KL term; 0 holds no reference model"
    )
    kl_reference: Literal["round", "initial"] = Field("round", description="policy that the KL term is taken to")
    kl_estimator: KlEstimator = Field(
        "k3",
        description="of the KL term: k1 and k2 have the gradient of KL(policy || reference), k3 that of the other direction",
    )
    truncated: Literal["keep", "leave_out"] = Field(
        "keep",
        description="responses that ended at max_response_length train as they were scored, or are left out of the loss and "
        "of their group's mean and std",
    )
    max_response_length: PositiveInt = Field(1024, description="tokens")
    temperature: Temperature = 0.8
    top_p: TopP = 1.0
    top_k: TopK = 0
    epochs: PositiveFloat = Field(1.0, description="passes over the round's training problems")
    max_updates: PositiveInt | None = Field(None, description="caps the updates of a round")
    updates_per_batch: PositiveInt = Field(1, description="updates on the same responses")
    max_grad_norm: PositiveFloat = Field(1.0, description="gradient clipping")
    warmup_updates: Annotated[int, Field(ge=0)] = Field(0, description="updates over which the learning rate rises")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="learning rate after the warm-up")
    adam_betas: tuple[Share, Share] = Field((0.9, 0.99), description="of AdamW")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="of AdamW")
    lora: LoraConfig | None = Field(None, description="train an adapter instead of all weights")
    activation_checkpointing: bool = Field(
        False,
        description="keep each layer's input only and compute the rest again: less memory, about a third more time",
    )
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="of the arithmetic; weights stay float32. auto: bfloat16 where the hardware has it"
    )
    deterministic: bool = Field(
        False,
        description="on a GPU: updates by kernels that give the same bits every time, so that a resumed training ends with the weights "
        "of one that was not stopped. A CPU does so anyway",
    )
    micro_batch_tokens: PositiveInt = Field(
        4096, description="of prompts and responses, padding included, per forward and backward pass; bounds the memory"
    )
    refill: Annotated[int, Field(ge=0)] = Field(
        0, description="most further rounds of sampling a step, with fresh problems in place of dead groups; 0 is off"
    )
    generation_rows: PositiveInt = Field(256, description="responses that are decoded together; bounds the memory")
    vllm: VllmConfig | None = Field(
        None, description="a server that writes the responses of training; default: the model itself"
    )
    early_stop: EarlyStopConfig = EarlyStopConfig()
    response_cache: ResponseCacheConfig = ResponseCacheConfig()
    monitor_kl_every: Annotated[int, Field(ge=0)] = Field(
        10, description="updates between two measurements of the KL from the initial policy; 0 is off"
    )
    save_steps: SaveSteps = 10

    @model_validator(mode="after")
    def _batch_is_whole_groups(self) -> "GrpoConfig":
        if self.group_size < 2:
            raise ValueError(f"group_size={self.group_size} gives every completion zero advantage; use group_size >= 2")
        if self.batch_size % self.group_size:
            raise ValueError(
                f"batch_size={self.batch_size} is no multiple of group_size={self.group_size}; "
                f"use {max(1, round(self.batch_size / self.group_size)) * self.group_size}"
            )
        return self

    @model_validator(mode="after")
    def _early_stop_fits_length(self) -> "GrpoConfig":
        for name, number in self.early_stop.first_looks.items():
            if number >= self.max_response_length:
                raise ValueError(
                    f"early_stop.{name}={number} is not under max_response_length={self.max_response_length}, so it stops "
                    "nothing (or, for `needs`, everything); lower it"
                )
        return self

    @model_validator(mode="after")
    def _vllm_can_write(self) -> "GrpoConfig":
        if self.vllm is None:
            return self
        unfit = {
            "early_stop": self.early_stop.is_on,
            "lora": self.lora is not None,
            "top_p": self.top_p < 1,
            "top_k": self.top_k > 0,
            "temperature": self.temperature == 0,
            "updates_per_batch": self.updates_per_batch > 1,
        }
        if wrong := [name for name, is_set in unfit.items() if is_set]:
            raise ValueError(
                f"vllm does not go with {', '.join(wrong)}; leave them at their defaults, or let the model write (no `vllm`)"
            )
        return self

    @model_validator(mode="after")
    def _cache_gives_a_response(self) -> "GrpoConfig":
        cache = self.response_cache
        if cache.share and not cache.num_rows(self.group_size):
            raise ValueError(
                f"response_cache.share={cache.share} of group_size={self.group_size} is less than one response; "
                f"use a share of at least {1 / self.group_size:.3g}, or 0"
            )
        return self

    @model_validator(mode="after")
    def _clipping_fits_loss(self) -> "GrpoConfig":
        high = self.clip_range if self.clip_range_high is None else self.clip_range_high
        if high < self.clip_range and self.loss != "cispo":
            raise ValueError(
                f"clip_range_high={high} is under clip_range={self.clip_range}; raise it, or leave it out for the same range"
            )
        if self.dual_clip is None:
            return self
        if self.loss == "cispo":
            raise ValueError(
                f"dual_clip={self.dual_clip} has no meaning for loss=cispo, which bounds every ratio; leave it out"
            )
        if self.dual_clip <= 1 + high:
            raise ValueError(f"dual_clip={self.dual_clip} must be over the upper bound 1 + {high}; 3 is usual")
        return self
