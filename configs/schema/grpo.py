"""The block `grpo_config`: loss, optimizer, sampling, early stopping of responses, and the response cache."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from configs.schema.block import (
    Block,
    Name,
    PositiveFloat,
    PositiveInt,
    SaveSteps,
    ServerUrl,
    Share,
    Temperature,
    TopK,
    TopP,
)
from configs.schema.lora import LoraSettings
from configs.schema.operational import LATER, OPERATIONAL


class LoopStop(Block):
    """Aborts a response that repeats the same block of tokens."""

    max_period: PositiveInt = Field(32, description="longest block that is looked for, in tokens")
    repeats: Annotated[int, Field(ge=2)] = Field(
        4, description="consecutive copies of the block at the end of the response"
    )
    min_tokens: PositiveInt = Field(
        32,
        description="fewest tokens in all copies together, so that a row of dashes in a table is not taken for a loop",
    )


class UnfinishableStop(Block):
    """Aborts a response that has too few tokens left to write a text that every complete response contains."""

    must_contain: str = Field(
        min_length=1, description="literal text that every complete response contains, for instance `</think>`"
    )
    needs: PositiveInt | None = Field(
        None,
        description="tokens needed to write `must_contain` and what follows it: a response without it is aborted when "
        "fewer are left; default: the tokens of `must_contain` plus end-of-sequence, which aborts only certain cases "
        "and saves little",
    )


class LowScoreStop(Block):
    """Aborts a response if a reward scores the text written so far too low."""

    reward: Name = Field(
        description="name of the reward, of kind reward_model or python, that scores the text written so far"
    )
    every: PositiveInt = Field(128, description="tokens between two scores")
    below: Annotated[float, Field(allow_inf_nan=False)] = Field(
        description="a response that scores lower is aborted; in the reward's units, before its weight"
    )


class EarlyStopConfig(Block):
    """Aborts hopeless responses during sampling, in training only; each criterion is off unless its block is given."""

    loop: LoopStop | None = Field(None, description="abort responses that loop; `{}` turns it on with its defaults")
    unfinishable: UnfinishableStop | None = Field(None, description="abort responses that can no longer be completed")
    low_score: LowScoreStop | None = Field(None, description="abort responses that a reward scores under a bound")
    aborted: Literal["score", "leave_out"] = Field(
        "score",
        description="score: an aborted response is scored as it stands; leave_out: it is left out of its group's "
        "baseline and of the loss",
    )

    @property
    def is_on(self) -> bool:
        return any((self.loop, self.unfinishable, self.low_score))

    @property
    def first_looks(self) -> dict[str, int]:
        """{setting: tokens} that a criterion must have seen, or must have left, before it can abort a response."""
        looks = {
            "loop.min_tokens": self.loop.min_tokens if self.loop else None,
            "unfinishable.needs": self.unfinishable.needs if self.unfinishable else None,
            "low_score.every": self.low_score.every if self.low_score else None,
        }
        return {name: num_tokens for name, num_tokens in looks.items() if num_tokens is not None}


class ResponseCacheConfig(Block):
    """Reuses good responses of earlier steps when their problem is asked again, so that fewer are sampled."""

    share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="largest share of a group that comes from the cache; 0 is off"
    )
    size: PositiveInt = Field(1024, description="most responses in the cache; the oldest are dropped first")
    max_age: PositiveInt = Field(16, description="steps for which a response stays in the cache")
    min_effective_share: Share = Field(
        0.5,
        description="lower bound on the effective sample size of a batch's cached responses, as a share of their "
        "number; the most off-policy ones are dropped until it holds; 0 is off",
    )

    def num_rows(self, group_size: int) -> int:
        """The most responses of a group that come from the cache."""
        return int(self.share * group_size + 1e-9)


class RowSamplingConfig(Block):
    """Lets a part of the rows into the update, those with large advantages most likely, weighted so that the gradient, that of a
    KL term too, stays right in the mean."""

    share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="of the responses that move the policy, how many are kept; each with a probability in proportion to its "
        "absolute advantage, and counted once over it. With a KL term all responses are drawn from, and a quarter of the probability "
        "is the same for all. 1 keeps all",
    )


KlEstimator = Literal["k1", "k2", "k3"]
Schedule = Literal["constant", "linear", "cosine"]


class LoraConfig(LoraSettings):
    """A low-rank adapter (arXiv 2106.09685) that is trained instead of all weights."""

    between_rounds: Literal["merge", "carry_on"] = Field(
        "merge",
        description="merge: each round trains a new adapter on the merged weights of the policy that it starts from, so that ranks add "
        "up over rounds; carry_on: each round goes on training the champion's adapter",
    )


class VllmConfig(Block):
    """vLLM servers that write all responses: of training, evaluation and regeneration (docs/vllm.md)."""

    urls: Annotated[list[ServerUrl], Field(min_length=1), OPERATIONAL] = Field(
        ["http://127.0.0.1:8000"],
        description="addresses of the servers, which share the work; each holds the policy. Nothing guards them: their network "
        "must be yours alone",
    )
    weights: Annotated[Literal["files", "lora", "broadcast"], OPERATIONAL] = Field(
        "files",
        description="how new weights reach the servers. files: written into `folder`; lora: only the adapter, written into "
        "`folder`, which needs `grpo_config.lora`; broadcast: over the network, by NCCL on GPUs and gloo on CPUs",
    )
    folder: Annotated[str | None, OPERATIONAL] = Field(
        None,
        min_length=1,
        description="where weights are written, a folder that trainer and servers both see under this path; default: in the "
        "stage's folder",
    )
    patience_s: Annotated[PositiveFloat, OPERATIONAL] = Field(
        600.0, description="seconds to wait for a server that went away or hangs, before the stage ends"
    )
    request_timeout_s: Annotated[PositiveFloat, OPERATIONAL] = Field(
        600.0, description="seconds that a server may take for one response; one that takes longer counts as hanging"
    )
    max_mismatch: Annotated[PositiveFloat, OPERATIONAL] = Field(
        0.15,
        description="after new weights, and at the start of a run: upper bound on the mean distance of the log-probabilities that "
        "server and trainer give to the same tokens, in nats; over it the stage ends, since the server holds other weights. "
        "bfloat16 alone makes 0.02 to 0.06",
    )
    importance: Literal["token", "sequence"] = Field(
        "token",
        description="importance weights correct for the different rounding of server and trainer, the trainer's probability over the "
        "server's: of each token, or of whole responses",
    )
    min_importance_weight: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="lower bound on importance weights"
    )
    max_importance_weight: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        2.0, description="upper bound on importance weights"
    )
    beyond: Literal["clip", "mask"] = Field(
        "clip",
        description="what happens to importance weights beyond the bounds. clip: they are set to the bound; mask: their tokens, or "
        "responses, are left out of the loss",
    )
    max_staleness: Annotated[Literal[0, 1], LATER] = Field(
        0,
        description="most steps by which the policy that wrote a response may be older than the one that learns from it. 1: servers "
        "write the responses of the next step while the trainer scores and learns from those of this one; importance weights "
        "correct for it",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_server_was_named_otherwise(cls, given: Any) -> Any:
        if isinstance(given, dict) and "base_url" in given:
            raise ValueError(
                f"base_url={given['base_url']!r}: servers are a list now; write urls: [{given['base_url']!r}]"
            )
        return given

    @model_validator(mode="after")
    def _servers_differ(self) -> "VllmConfig":
        urls = [url.rstrip("/") for url in self.urls]
        if twice := [url for url in urls if urls.count(url) > 1]:
            raise ValueError(f"urls has {twice[0]} twice; name each server once")
        return self


class GrpoConfig(Block):
    """Training of the policy by Group Relative Policy Optimization (arXiv 2402.03300) or one of its variants."""

    group_size: int = Field(8, description="responses per problem")
    loss: Literal["grpo", "dapo", "bnpo", "dr_grpo", "gspo", "cispo"] = Field(
        "grpo",
        description="grpo: token mean within each response, then mean over responses; dapo, bnpo: mean over all "
        "tokens; dr_grpo: sum over a constant; gspo: grpo with one ratio per response; cispo: clipped weights that "
        "keep every token's gradient",
    )
    clip_range: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2,
        description="epsilon of the clipped ratio, which stays in [1 - epsilon, 1 + epsilon]; `gspo` wants about "
        "3e-4, `cispo` has no lower bound",
    )
    clip_range_high: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="epsilon of the upper bound, if it differs (DAPO: 0.28); default: clip_range"
    )
    dual_clip: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="upper bound on the ratio where the advantage is negative, for instance 3; default: none"
    )
    learning_rate: PositiveFloat = Field(1e-6, description="peak learning rate of AdamW")
    batch_size: PositiveInt = Field(512, description="responses per step, a multiple of group_size")
    kl_coefficient: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="weight of the KL term in the loss; at 0 no reference model is loaded"
    )
    kl_reference: Literal["round", "initial"] = Field(
        "round",
        description="reference of the KL term. round: the policy that the round's training starts from; initial: the initial policy of the run",
    )
    kl_estimator: KlEstimator = Field(
        "k3",
        description="estimator of the KL term: k1 and k2 have the gradient of KL(policy || reference), k3 that of "
        "KL(reference || policy)",
    )
    truncated: Literal["keep", "leave_out"] = Field(
        "keep",
        description="keep: responses cut at max_response_length are trained on like others; leave_out: they are left "
        "out of the loss and of their group's mean and std",
    )
    max_response_length: PositiveInt = Field(1024, description="most tokens of a response")
    temperature: Temperature = 0.8
    top_p: TopP = 1.0
    top_k: TopK = 0
    epochs: PositiveFloat = Field(1.0, description="passes over the round's training problems")
    max_updates: PositiveInt | None = Field(None, description="most updates of a round, whatever `epochs` says")
    updates_per_batch: PositiveInt = Field(1, description="updates on the same sampled responses")
    max_grad_norm: PositiveFloat = Field(1.0, description="the gradient is clipped to this norm")
    warmup_updates: Annotated[int, Field(ge=0)] = Field(
        0, description="updates over which the learning rate rises linearly to its peak: 1/5, 2/5, ..., 1 of it at 5"
    )
    schedule: Schedule = Field("constant", description="shape of the learning rate after the warm-up")
    adam_betas: tuple[Share, Share] = Field((0.9, 0.99), description="beta1 and beta2 of AdamW")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="weight decay of AdamW")
    lora: LoraConfig | None = Field(None, description="train an adapter instead of all weights")
    activation_checkpointing: bool = Field(
        False,
        description="keep only each layer's input and recompute the rest in the backward pass: less memory, about a "
        "third more time",
    )
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="precision of the arithmetic; the trained weights stay float32. auto: bfloat16 if the hardware "
        "multiplies faster in it",
    )
    deterministic: bool = Field(
        False,
        description="on a GPU, use deterministic kernels for the updates, so that a resumed training ends with "
        "exactly the weights of an uninterrupted one. A CPU does so anyway",
    )
    micro_batch_tokens: PositiveInt = Field(
        4096,
        description="tokens of prompts and responses, with padding, per forward and backward pass; bounds the memory",
    )
    refill: Annotated[int, Field(ge=0)] = Field(
        0, description="most times per step that dead groups are replaced by groups of fresh problems; 0 is off"
    )
    generation_rows: PositiveInt = Field(256, description="most responses that are decoded together; bounds the memory")
    vllm: VllmConfig | None = Field(
        None,
        description="vLLM servers that write all responses; default: the model writes in the training process",
    )
    early_stop: EarlyStopConfig = EarlyStopConfig()
    response_cache: ResponseCacheConfig = ResponseCacheConfig()
    row_sampling: Annotated[RowSamplingConfig, LATER] = RowSamplingConfig()
    monitor_kl_every: Annotated[int, Field(ge=0)] = Field(
        10, description="steps between two measurements of the KL divergence from the initial policy; 0 is off"
    )
    save_steps: SaveSteps = 10

    @property
    def draws_from_a_part(self) -> bool:
        """Whether unlikely tokens are never drawn (top_p, top_k)."""
        return self.top_p < 1 or self.top_k > 0

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
        for name, num_tokens in self.early_stop.first_looks.items():
            if num_tokens >= self.max_response_length:
                raise ValueError(
                    f"early_stop.{name}={num_tokens} is not under max_response_length={self.max_response_length}, so it stops "
                    "nothing (or, for `needs`, everything); lower it"
                )
        return self

    @model_validator(mode="after")
    def _vllm_can_write(self) -> "GrpoConfig":
        if self.vllm is None:
            return self
        if self.early_stop.is_on:
            raise ValueError(
                "vllm does not go with early_stop, since a server's responses are seen when they are whole; drop one of the two"
            )
        if self.vllm.weights == "lora" and self.lora is None:
            raise ValueError(
                "vllm.weights=lora sends an adapter, and none is trained; give grpo_config.lora, or use weights=files"
            )
        if self.vllm.max_staleness:
            self._refuse_what_cannot_be_ahead()
        return self

    def _refuse_what_cannot_be_ahead(self) -> None:
        """The next step's responses are asked for before this step's are scored and learned from."""
        if self.refill:
            raise ValueError(
                f"vllm.max_staleness=1 does not go with refill={self.refill}: the servers write the next step's responses when it is "
                "known which groups are dead; use refill=0 or max_staleness=0"
            )
        if self.response_cache.share:
            raise ValueError(
                f"vllm.max_staleness=1 does not go with response_cache.share={self.response_cache.share}: the next step's responses "
                "are asked for before this step's can be cached; use share=0 or max_staleness=0"
            )
        if self.draws_from_a_part:
            raise ValueError(
                f"vllm.max_staleness=1 does not go with top_p={self.top_p} and top_k={self.top_k}: importance weights need the "
                "probability of each token over the whole vocabulary, by the policy that wrote it; use top_p=1 and top_k=0, or "
                "max_staleness=0"
            )

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
