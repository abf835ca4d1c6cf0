"""The blocks `run`, `launcher` and `alerts`: the name of the run, its date, what stays of it on disk, where it trains, and who is told of what happens."""

import datetime
import re
from pathlib import PurePath
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from configs.schema.block import Block, Name, PositiveInt

Happening = Literal[
    "challenger.promoted",
    "challenger.refused",
    "reward_model.refused",
    "accuracy.fell",
    "watch.triggered",
    "run.finished",
    "run.failed",
    "run.interrupted",
    "run.skipped",
]
HAPPENINGS: tuple[Happening, ...] = get_args(Happening)
PREFIX = "regroup."
"""of a happening's name as an event, in Prefect and in what receivers get"""

VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"

FILE_SUFFIXES = frozenset(
    [
        ".json",
        ".jsonl",
        ".lock",
        ".tmp",
        ".db",
        ".sqlite",
        ".yaml",
        ".yml",
        ".html",
        ".txt",
        ".log",
        ".csv",
        ".md",
        ".parquet",
        ".safetensors",
        ".bak",
    ]
)


def _no_file_name(name: str) -> str:
    if (suffix := PurePath(name).suffix.lower()) in FILE_SUFFIXES:
        raise ValueError(
            f"{name!r} could be a file beside the runs, as runs/champion.json is; leave out {suffix}, for instance "
            f"{name[: -len(suffix)]!r}"
        )
    return name


class RunConfig(Block):
    """The name of the run in the workspace, its date, and what stays on disk."""

    name: Annotated[Name, AfterValidator(_no_file_name)] | None = Field(
        None,
        description="name of the run and of its folder, which is not that of a file, such as champion.json; default: the name of the "
        "configuration file",
    )
    date: datetime.date | None = Field(
        None,
        description="the day that chat templates get as today's; default: the day on which the run started, also when it "
        "goes on later; a follow-on keeps its predecessor's",
    )
    keep_rounds: PositiveInt | None = Field(
        None,
        description="after the run, clean the workspace as `regroup clean` does: of each chain of runs, the models of its "
        "newest rounds stay, as many as this says, and whatever else is needed (champions, what an unfinished or the next "
        "run starts from); default: nothing is cleaned",
    )
    keep_artifacts: bool = Field(
        True,
        description="whether cleaning leaves the copies of removed models among MLflow's local artifacts; they are hard links, "
        "so the disk gets the space back only if they go too, and then those versions of MLflow's registry cannot be loaded",
    )


class AlertConfig(Block):
    """A receiver, a webhook or a command, and what it is told of. [operations.md](operations.md) says more."""

    on: Annotated[list[Happening], Field(min_length=1)] = Field(
        description="what happens: one name or several; `challenger.refused` and `regroup.challenger.refused` are the same"
    )
    webhook_env: str | None = Field(
        None,
        description="environment variable that holds the address of a webhook, to which JSON is posted that Slack, "
        "Mattermost and others like them take",
    )
    command: Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="program and arguments, as a list; it gets the same JSON on standard input, and exit code 0 means that "
        "it was told",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, data: Any) -> Any:
        """The block with its key `on`, which YAML 1.1 reads as true; faults are told without the value, which may be secret."""
        if not isinstance(data, dict):
            return data
        block = {"on" if key is True else key: value for key, value in data.items()}
        name = block.get("webhook_env")
        if name is not None and not re.fullmatch(VARIABLE, str(name)):
            raise ValueError(
                "webhook_env is the name of an environment variable, for instance SLACK_WEBHOOK, and not the address itself: "
                "export the address under that name"
            )
        if isinstance(block.get("command"), str):
            raise ValueError("command is a list of program and arguments, for instance [notify-send, Regroup]")
        return block

    @field_validator("on", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list):
            return names
        return [name.removeprefix(PREFIX) if isinstance(name, str) else name for name in names]

    @model_validator(mode="after")
    def _one_receiver(self) -> "AlertConfig":
        if (self.webhook_env is None) == (self.command is None):
            raise ValueError("an alert needs exactly one of `webhook_env` and `command`")
        return self


class LauncherConfig(Block):
    """The process in which policies and reward models are trained; the result is the same up to rounding."""

    kind: Literal["inline", "process", "torchrun", "accelerate"] = Field(
        "inline",
        description="inline: in the process of the flow; process: in a child process, whose memory is freed at its "
        "end; torchrun: in several ranks, on one or several machines, which share each batch when the policy is trained; "
        "accelerate: the same on one machine, or as `config_file` says",
    )
    num_processes: PositiveInt = Field(
        1,
        description="ranks that train the policy, over all machines, for kinds torchrun and accelerate; a reward model is "
        "always trained by one",
    )
    num_machines: PositiveInt = Field(
        1,
        description="machines that train the policy together, for kind torchrun; each has `num_processes / num_machines` "
        "ranks, which torchrun calls `--nproc-per-node`, and all see the workspace's folder. `regroup join RUN` is run on "
        "each but the first",
    )
    rendezvous: str | None = Field(
        None,
        description="`host:port` of the machine on which `regroup run` works, by the name that the others reach it by; for "
        "`num_machines` > 1",
    )
    shard: bool = Field(
        False,
        description="whether the ranks split policy, reference and the reward models of `rewards` among them (torch's "
        "`fully_shard`), where otherwise each holds them whole; for kinds torchrun and accelerate, with `grpo_config.vllm`. "
        "[scale.md](scale.md) says what fits where",
    )
    join_timeout_s: PositiveInt = Field(
        600, description="how long the other machines are waited for at the beginning of a training"
    )
    config_file: str | None = Field(
        None,
        description="configuration file for `accelerate launch`, for kind accelerate; default: torchrun on this machine",
    )

    @model_validator(mode="after")
    def _fits_kind(self) -> "LauncherConfig":
        if self.kind in ("inline", "process") and self.num_processes > 1:
            raise ValueError(f"num_processes={self.num_processes} needs kind torchrun or accelerate, not {self.kind}")
        if self.kind != "accelerate" and self.config_file is not None:
            raise ValueError(f"config_file={self.config_file!r} needs kind accelerate, not {self.kind}")
        return self

    @model_validator(mode="after")
    def _ranks_to_shard_among(self) -> "LauncherConfig":
        if self.shard and self.kind in ("inline", "process"):
            raise ValueError(f"shard=true needs kind torchrun or accelerate, not {self.kind}")
        return self

    @model_validator(mode="after")
    def _machines_fit(self) -> "LauncherConfig":
        machines, ranks = self.num_machines, self.num_processes
        if machines == 1:
            if self.rendezvous is not None:
                raise ValueError(f"rendezvous={self.rendezvous!r} is of several machines, and num_machines=1; drop it")
            return self
        if self.kind != "torchrun":
            raise ValueError(f"num_machines={machines} needs kind torchrun, not {self.kind}")
        if ranks % machines:
            raise ValueError(
                f"num_processes={ranks} are the ranks of all num_machines={machines}, which have equally many; "
                f"use a multiple of {machines}"
            )
        host, _, port = (self.rendezvous or "").rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(
                f"num_machines={machines} need a rendezvous, host:port of the machine on which `regroup run` works, such as "
                f"node1:29400, not {self.rendezvous!r}"
            )
        return self

    @property
    def ranks_per_machine(self) -> int:
        return self.num_processes // self.num_machines
