"""The block `policy`: the language model that a run starts from, and what each round's training starts from."""

from typing import Annotated, Literal

from pydantic import Field

from configs.schema.block import Block
from configs.schema.operational import LATER
from configs.schema.sources.wheel import WheelSource


class ModelSource(Block):
    """A model in a folder, on a hub, or as a GGUF file in a wheel."""

    path: str = Field(
        min_length=1,
        description="hub id, folder with safetensors, `builtin:tiny` (a small random model that is built in code), or "
        "`builtin:tiny_vllm` (the same with wider heads, which vLLM serves on a CPU)",
    )
    revision: str | None = Field(None, description="commit of the hub repository")
    wheel: WheelSource | None = Field(
        None, description="wheel from which the folder `path` is made if it does not exist yet"
    )


class PolicyConfig(ModelSource):
    """The language model that round 0 starts from."""

    start_from: Annotated[Literal["champion", "given"], LATER] = Field(
        "champion",
        description="champion: each round goes on training the champion; given: each round trains anew from the policy that the run "
        "was given, which round 0 measures (in a follow-on the champion that it follows on from)",
    )
