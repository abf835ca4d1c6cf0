"""The block `run`: the name of the run, and its date."""

import datetime

from pydantic import Field

from configs.schema.block import Block, Name


class RunConfig(Block):
    """The name of the run in the workspace, and its date."""

    name: Name | None = Field(
        None, description="name of the run and of its folder; default: the name of the configuration file"
    )
    date: datetime.date | None = Field(
        None,
        description="the day that chat templates get as today's; default: the day on which the run started, also when it "
        "goes on later; a follow-on keeps its predecessor's",
    )
