"""What Prefect's page shows of a stage. A page that cannot be written never stops the work."""

import logging
import re

from httpx import HTTPError
from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectException

from tasks.run import Run


def show(run: Run, key: str, title: str, values: dict[str, float]) -> None:
    """A table of numbers as an artifact of the current task run; outside of one, nothing."""
    if TaskRunContext.get() is None:
        return
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in values.items())
    markdown = f"# {title}\n\nRun `{run.name}`\n\n| metric | value |\n|---|---|\n{rows}\n"
    try:
        create_markdown_artifact(markdown, key=_artifact_key(f"{run.name}-{key}"), description=title)
    except (HTTPError, PrefectException, OSError) as error:
        logging.getLogger("regroup").warning("Prefect's page lacks %r: %s", title, error)


def _artifact_key(text: str) -> str:
    """Prefect's keys hold small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
