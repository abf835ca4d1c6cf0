"""The base class of all configuration blocks, and field types that several blocks share."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from configs.schema.operational import OPERATIONAL

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
SERVER = r"^https?://[^/\s]"
Name = Annotated[str, Field(pattern=NAME)]
EnvironmentVariable = Annotated[str, Field(pattern=VARIABLE)]


def _of_a_server(url: str) -> str:
    """The address, unless it is that of something that the server can be asked."""
    given = url.rstrip("/")
    for endpoint in ENDPOINTS:
        if urlsplit(given).path.endswith(endpoint):
            raise ValueError(f"{url} ends with the path of an endpoint; write {given.removesuffix(endpoint)}")
    return url


ENDPOINTS = ("/v1", "/completions", "/classify", "/pooling", "/score", "/health", "/models")
ServerUrl = Annotated[str, Field(pattern=SERVER), AfterValidator(_of_a_server)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Temperature = Annotated[
    float,
    Field(
        gt=0,
        le=10,
        description="logits are divided by it before sampling; 0 is refused, as it would make all completions of a "
        "group equal",
    ),
]
TopP = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="nucleus sampling: sample from the fewest tokens that have this total probability; 1 is off",
    ),
]
TopK = Annotated[int, Field(ge=0, description="sample from this many most likely tokens; 0 is off")]
SaveSteps = Annotated[
    int,
    Field(
        ge=0,
        description="steps between two checkpoints, which is the most that a kill costs; 0 is off: an interrupted "
        "stage starts over",
    ),
    OPERATIONAL,
]


class Block(BaseModel):
    """Base of all blocks: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
