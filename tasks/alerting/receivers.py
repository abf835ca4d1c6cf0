"""Tells one receiver of one alert: a webhook, a command, or Prefect's events."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.schema.run import PREFIX, AlertConfig, Happening
from tasks.alerting import webhook
from tasks.alerting.outbox import Alert

PREFECT = "prefect"
WEBHOOK, COMMAND = "webhook:", "command:"
PATIENCE_S = 15.0
"""after which a webhook or a command is ended, and told again later"""


class Untold(Exception):
    """The receiver could not be told; the message says why."""


def receiver_of(config: AlertConfig) -> str:
    """The receiver as the outbox names it: `webhook:SLACK_WEBHOOK` or `command:["notify-send", "Regroup"]`."""
    return WEBHOOK + config.webhook_env if config.webhook_env else COMMAND + json.dumps(config.command)


def receivers(alerts: Sequence[AlertConfig], happening: Happening) -> list[str]:
    """Who is to be told of a happening, each once."""
    return list(dict.fromkeys(receiver_of(alert) for alert in alerts if happening in alert.on))


def fault_of(receiver: str) -> str | None:
    """Why the receiver can never be told, with the remedy; None if it may be."""
    if receiver.startswith(WEBHOOK):
        name = receiver.removeprefix(WEBHOOK)
        address = os.environ.get(name, "").strip()
        if not address:
            return f"webhook_env={name} is not set; export the webhook's address under that name"
        if not address.startswith(("http://", "https://")):
            return f"webhook_env={name}: its value {webhook.NO_ADDRESS}; export the webhook's address under that name"
    if receiver.startswith(COMMAND):
        program = json.loads(receiver.removeprefix(COMMAND))[0]
        if shutil.which(program) is None:
            return f"command[0]={program!r} is no program here; install it, or name it by its whole path"
    return None


def refuse_faulty(alerts: Sequence[AlertConfig]) -> None:
    """Check the receivers before a schedule starts that nobody watches.

    Raises:
        ConfigError: one of them can never be told.
    """
    if faults := [fault for alert in alerts if (fault := fault_of(receiver_of(alert))) is not None]:
        raise ConfigError("\n".join(f"alerts: {fault}" for fault in dict.fromkeys(faults)))


def tell(receiver: str, alert: Alert, root: Path) -> None:
    """Tell a receiver, within `PATIENCE_S`.

    Raises:
        Untold: it could not be told.
    """
    if receiver == PREFECT:
        _tell_prefect(alert)
    elif receiver.startswith(WEBHOOK):
        _run([sys.executable, "-I", webhook.__file__, receiver.removeprefix(WEBHOOK)], message(alert, root))
    else:
        _run(json.loads(receiver.removeprefix(COMMAND)), message(alert, root))


def message(alert: Alert, root: Path) -> dict[str, Any]:
    """What webhooks and commands get."""
    return {
        "text": f"Regroup: {alert.text}",
        "event": PREFIX + alert.happening,
        "id": alert.id,
        "time": _time(alert).isoformat(timespec="seconds"),
        "run": alert.run,
        "round": alert.round,
        "details": alert.details,
        "workspace": str(root.absolute()),
        "host": socket.gethostname(),
    }


def _time(alert: Alert) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(alert.at_ms / 1000, datetime.UTC)


def _run(command: list[str], given: dict[str, Any]) -> None:
    """Run a command in a session of its own, so that it can be ended with all that it started."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise Untold(str(error)) from error
    with process:
        try:
            _, complaint = process.communicate(json.dumps(given).encode() + b"\n", timeout=PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise Untold(f"no answer within {PATIENCE_S:.0f} s") from error
    if process.returncode != 0:
        said = complaint.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise Untold(said or f"exit code {process.returncode}")


def _tell_prefect(alert: Alert) -> None:
    """Send the alert as an event of Prefect, over HTTP, since an answer there means that the event arrived."""
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.events import Event
    from prefect.exceptions import PrefectException
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    if not PREFECT_API_URL.value():
        raise Untold("no server is connected")
    event = Event.model_validate(prefect_event(alert))
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),  # what fails is told again later
            get_client(httpx_settings={"timeout": PATIENCE_S / 3}, sync_client=True) as client,
        ):
            client.request("POST", "/events", json=[event.model_dump(mode="json")])
    except (HTTPError, PrefectException, OSError, RuntimeError) as error:
        raise Untold(str(error) or type(error).__name__) from error


def prefect_event(alert: Alert) -> dict[str, Any]:
    """The event as Prefect takes it: of the resource `regroup.run.<name>`, related to the flow run."""
    flow_run = {"prefect.resource.id": f"prefect.flow-run.{alert.flow_run}", "prefect.resource.role": "flow-run"}
    return {
        "id": alert.id,
        "occurred": _time(alert).isoformat(),
        "event": PREFIX + alert.happening,
        "resource": {"prefect.resource.id": f"regroup.run.{alert.run}", "prefect.resource.name": alert.run},
        "related": [flow_run] if alert.flow_run else [],
        "payload": {"text": alert.text, "run": alert.run, "round": alert.round, "details": alert.details},
    }
