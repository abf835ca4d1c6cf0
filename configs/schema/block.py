"""What the blocks of the configuration are made of: their base, and the fields that several of them have."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from configs.schema.operational import OPERATIONAL

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Temperature = Annotated[
    float,
    Field(gt=0, le=10, description="logits are divided by it before sampling; 0 would make all completions equal"),
]
TopP = Annotated[float, Field(gt=0, le=1, description="nucleus; 1 is off")]
TopK = Annotated[int, Field(ge=0, description="most likely tokens kept; 0 is off")]
SaveSteps = Annotated[
    int,
    Field(
        ge=0,
        description="steps between two checkpoints, the most that a kill costs; 0 is off: an interrupted stage starts over",
    ),
    OPERATIONAL,
]


class Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
