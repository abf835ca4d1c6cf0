"""The command `regroup alerts`: what happened in the workspace's runs and who was told, and a test of the receivers."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from configs.errors import ConfigError
from configs.reader import load_config
from tasks.alerting.outbox import Alert, Outbox
from tasks.alerting.receivers import Untold, fault_of, receiver_of, tell
from tasks.showing.terminal import Terminal

NUM_SHOWN = 20


def show_alerts(root: Path) -> None:
    """Print the last happenings of the workspace, oldest first, with the receivers that were not told yet."""
    outbox, terminal = Outbox(root), Terminal()
    untold: dict[str, list[str]] = {}
    for receiver, missing in outbox.missing().items():
        for alert in missing:
            untold.setdefault(alert.id, []).append(receiver)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in ("time", "what happened", "not told yet"):
        table.add_column(column, overflow="fold")
    alerts = outbox.alerts()[-NUM_SHOWN:]
    for alert in alerts:
        happened = time.strftime("%m-%d %H:%M", time.localtime(alert.at_ms / 1000))
        table.add_row(happened, f"{alert.happening}\n{alert.text}", "\n".join(untold.get(alert.id, ["-"])))
    terminal.print(table if alerts else f"nothing to tell of happened in {root / 'runs'} yet")


def try_receivers(path: Path, overrides: tuple[str, ...], root: Path) -> None:
    """Send a message to each receiver of the configuration, and print which took it.

    Raises:
        ConfigError: there is no receiver, or one did not take the message.
    """
    config, terminal = load_config(path, list(overrides)), Terminal()
    if not config.alerts:
        raise ConfigError(
            f"{path} has no alerts; add for instance: alerts: [{{on: run.failed, webhook_env: SLACK_WEBHOOK}}]"
        )
    faults = []
    for alert in config.alerts:
        receiver = receiver_of(alert)
        test = Alert(
            id=str(uuid.uuid4()),
            happening="test",
            at_ms=int(time.time() * 1000),
            run=config.run_name,
            round=None,
            text=f"run {config.run_name}: a test of this receiver, which is told of {', '.join(alert.on)}",
            details={"on": list(alert.on)},
            flow_run=None,
            to=[receiver],
        )
        try:
            if (fault := fault_of(receiver)) is not None:
                raise Untold(fault)
            tell(receiver, test, root)
            terminal.print(f"{receiver} was told")
        except Untold as error:
            faults.append(f"{receiver}: {error}")
    if faults:
        raise ConfigError("not told:\n" + "\n".join(f"  {fault}" for fault in faults))
