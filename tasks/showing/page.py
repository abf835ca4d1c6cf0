"""Shows a stage's numbers and pauses on Prefect's page. If Prefect cannot be reached, it warns and the work goes on."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from prefect.states import Paused, Running

MONTH_S = 30 * 24 * 3600


def show(run_name: str, key: str, title: str, values: dict[str, float]) -> None:
    """Create a table of numbers as an artifact of the current task run; outside of a task run, do nothing."""
    if TaskRunContext.get() is None:
        return
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in values.items())
    markdown = f"# {title}\n\nRun `{run_name}`\n\n| metric | value |\n|---|---|\n{rows}\n"
    try:
        create_markdown_artifact(markdown, key=artifact_key(f"{run_name}-{key}"), description=title)
    except (HTTPError, PrefectException, OSError) as error:
        logging.getLogger("regroup").warning("Prefect's page lacks %r: %s", title, error)


def artifact_key(text: str) -> str:
    """`text` as an artifact key of Prefect, which holds only lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@contextmanager
def paused_for_people() -> Iterator[Callable[[], bool]]:
    """Show the round's flow run as paused while a stage waits for people.

    Yields a function to poll: its first call pauses the flow run on Prefect's page, and it returns True once somebody
    has pressed Resume there. At the end of the block the flow run is set to running again.
    """
    pause = _Pause(flow_run.id)
    try:
        yield pause.resumed
    finally:
        pause.end()


class _Pause:
    """The pause of one flow run. Without a flow run, or if Prefect cannot be reached, nothing is shown or resumed."""

    def __init__(self, flow_run_id: str | None) -> None:
        self._id = UUID(flow_run_id) if flow_run_id else None
        self._began = False

    def resumed(self) -> bool:
        if self._id is None:
            return False
        try:
            with get_client(sync_client=True) as client:
                if self._began:
                    state = client.read_flow_run(self._id).state
                    return state is not None and not state.is_paused()
                client.set_flow_run_state(self._id, Paused(timeout_seconds=MONTH_S), force=True)
                self._began = True
        except (HTTPError, PrefectException, OSError) as error:
            logging.getLogger("regroup").warning("Prefect's page does not show the pause: %s", error)
        return False

    def end(self) -> None:
        if self._id is None or not self._began:
            return
        try:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(self._id, Running(), force=True)
        except (HTTPError, PrefectException, OSError) as error:
            logging.getLogger("regroup").warning("Prefect's page still shows a pause: %s", error)
