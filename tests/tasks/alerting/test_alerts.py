"""Each happening is told once, whatever dies or is away, and nobody waits for a receiver."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from configs.errors import ConfigError
from configs.schema.run import AlertConfig
from tasks.alerting import alerts as alerting
from tasks.alerting import receivers, webhook
from tasks.alerting.alerts import Alerts
from tasks.alerting.outbox import Outbox
from tests.paths import ROOT
from tests.tasks.alerting.hook import SECRET, Hook, listening, until

REFUSED: Any = "challenger.refused"
HOOKED = [AlertConfig.model_validate({"on": ["challenger.refused", "run.failed"], "webhook_env": "MY_HOOK"})]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with listening() as server:
        monkeypatch.setenv("MY_HOOK", server.address)
        yield server


def _alerts(root: Path, configured: list[AlertConfig] | None = None, warnings: list[str] | None = None) -> Alerts:
    """What a process of its own would have."""
    said = [] if warnings is None else warnings
    return Alerts(root, HOOKED if configured is None else configured, run="mini", uid="a1", warn=said.append)


def _command(*command: str, on: str = "challenger.refused") -> list[AlertConfig]:
    return [AlertConfig.model_validate({"on": on, "command": list(command)})]


def test_a_webhook_gets_text_and_fields(tmp_path: Path, hook: Hook) -> None:
    alerts = _alerts(tmp_path)
    alerts.tell(REFUSED, "the challenger was refused; -0.03 <over 64 problems>", which="x", round_index=3, gain=-0.03)
    alerts.finish()
    [message] = hook.messages
    assert message["text"] == ("Regroup: run mini, round 3: the challenger was refused; -0.03 &lt;over 64 problems&gt;")
    assert (message["event"], message["run"], message["round"]) == ("regroup.challenger.refused", "mini", 3)
    assert message["details"] == {"gain": -0.03}
    assert message["workspace"] == str(tmp_path)
    assert hook.keys == [message["id"]]


def test_what_is_told_again_in_a_resumed_run_is_sent_once(tmp_path: Path, hook: Hook) -> None:
    for _ in range(3):
        alerts = _alerts(tmp_path)
        alerts.tell(REFUSED, "no", which=("champion", "challenger"), round_index=1)
        alerts.tell(REFUSED, "no", which=("champion", "challenger"), round_index=1)
        alerts.finish()
    alerts = _alerts(tmp_path)
    alerts.tell(REFUSED, "no", which=("champion", "another"), round_index=1)  # the stage ran again, to another end
    alerts.finish()
    assert len(hook.messages) == 2


def test_only_what_is_asked_for_is_sent_and_all_is_written_down(tmp_path: Path, hook: Hook) -> None:
    alerts = _alerts(tmp_path)
    alerts.tell("run.finished", "finished", which=1)
    alerts.tell("run.failed", "failed", which=1)
    alerts.finish()
    assert hook.events == ["regroup.run.failed"]
    assert [alert.happening for alert in Outbox(tmp_path).alerts()] == ["run.finished", "run.failed"]


def test_a_receiver_that_is_named_later_is_not_told_of_what_was_before(tmp_path: Path, hook: Hook) -> None:
    for configured in ([], HOOKED):
        alerts = _alerts(tmp_path, configured)
        alerts.tell(REFUSED, "no", which=1)
        alerts.finish()
    assert hook.messages == []


def test_a_receiver_that_is_away_is_told_by_a_later_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MY_HOOK", f"http://127.0.0.1:{port}/services/{SECRET}")
    warnings: list[str] = []
    alerts = _alerts(tmp_path, warnings=warnings)
    for number in range(3):
        alerts.tell(REFUSED, f"no {number}", which=number)
    alerts.finish()
    assert len(warnings) == 1
    assert "webhook:MY_HOOK could not be told of challenger.refused ([Errno 111] Connection refused)" in warnings[0]
    assert len(Outbox(tmp_path).missing()["webhook:MY_HOOK"]) == 3
    with listening(port) as hook:
        later = Alerts(tmp_path, [], run="mini-0002", uid="b2")  # its own configuration has no receiver
        later.send()
        later.finish()
        assert [message["text"][-4:] for message in hook.messages] == ["no 0", "no 1", "no 2"]
    assert Outbox(tmp_path).missing() == {}


def test_a_receiver_that_comes_back_is_told_by_the_same_run(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "RETRY_EVERY_S", 0.05)
    hook.status = 503
    warnings: list[str] = []
    alerts = _alerts(tmp_path, warnings=warnings)
    alerts.tell(REFUSED, "no", which=1)
    until(lambda: len(hook.asked) >= 2)
    hook.status = 200
    until(lambda: hook.events == ["regroup.challenger.refused"])
    alerts.finish()
    assert len(hook.messages) == 1
    assert warnings == ["webhook:MY_HOOK could not be told of challenger.refused (HTTP 503); it will be told later"]


def test_nobody_waits_for_a_slow_receiver(tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "PATIENCE_S", 1.0)
    hook.delay_s = 5
    warnings: list[str] = []
    alerts = _alerts(tmp_path, warnings=warnings)
    began = time.monotonic()
    alerts.tell(REFUSED, "no", which=1)
    assert time.monotonic() - began < 0.3
    alerts.finish()
    assert time.monotonic() - began < 4
    assert "no answer within 1 s" in warnings[0]
    assert "webhook:MY_HOOK" in Outbox(tmp_path).missing()


def test_the_end_of_a_run_waits_for_receivers_for_a_while_only(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "END_WITHIN_S", 0.5)
    hook.delay_s = 3
    alerts = _alerts(tmp_path)
    alerts.tell(REFUSED, "no", which=1)
    began = time.monotonic()
    alerts.finish()
    assert time.monotonic() - began < 1.5
    until(lambda: Outbox(tmp_path).missing() == {})  # the thread goes on while the process lives


@pytest.mark.parametrize(("status", "reason"), [(302, "HTTP 302"), (404, "HTTP 404"), (429, "HTTP 429")])
def test_an_answer_other_than_yes_is_told_again_later(tmp_path: Path, hook: Hook, status: int, reason: str) -> None:
    """A redirect would turn the POST into a GET that is answered with 200."""
    hook.status = status
    warnings: list[str] = []
    alerts = _alerts(tmp_path, warnings=warnings)
    alerts.tell(REFUSED, "no", which=1)
    alerts.finish()
    assert f"({reason})" in warnings[0]
    assert set(hook.asked) == {"POST"}
    assert "webhook:MY_HOOK" in Outbox(tmp_path).missing()


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:1/{}", "https://127.0.0.1:1/{}", "ftp://a/{}", "http://[::1/{}", "http://a b/{}", "{}"],
)
def test_the_address_is_never_stored_or_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_HOOK", address.format(SECRET))
    caplog.set_level(logging.DEBUG)
    warnings: list[str] = []
    alerts = _alerts(tmp_path, warnings=warnings)
    alerts.tell(REFUSED, "no", which=1)
    alerts.finish()
    assert len(warnings) == 1
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "kept-secret" not in kept + caplog.text + warnings[0]


def test_a_kill_before_anybody_was_told_loses_nothing(tmp_path: Path, hook: Hook) -> None:
    """The process kills itself while the webhook is being told, which answers late."""
    hook.delay_s = 1
    code = (
        "import os, signal, time\nfrom pathlib import Path\nfrom tests.tasks.alerting.test_alerts import _alerts, REFUSED\n"
        f"_alerts(Path({str(tmp_path)!r})).tell(REFUSED, 'no', which=1)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert killed.returncode == -9
    assert len(Outbox(tmp_path).alerts()) == 1
    hook.delay_s = 0
    time.sleep(1.2)
    alerts = _alerts(tmp_path)
    alerts.tell(REFUSED, "no", which=1)  # as a resumed run does
    alerts.finish()
    # at least once: what the killed process had begun to send may have arrived too, with the same id
    assert {message["id"] for message in hook.messages} == {Outbox(tmp_path).alerts()[0].id}
    assert Outbox(tmp_path).missing() == {}


def test_one_process_tells_at_a_time(tmp_path: Path, hook: Hook) -> None:
    """Two at once would each send what is missing."""
    hook.delay_s = 0.3
    code = (
        "from pathlib import Path\nfrom tests.tasks.alerting.test_alerts import _alerts\n"
        f"alerts = _alerts(Path({str(tmp_path)!r}))\nalerts.send()\nalerts.finish()"
    )
    before = _alerts(tmp_path, [])
    before._configured = HOOKED
    outbox = Outbox(tmp_path)
    with outbox.alone():
        for number in range(3):
            before.tell(REFUSED, "no", which=number)
        command = [sys.executable, "-c", code]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        others = [subprocess.Popen(command, cwd=ROOT, env=environment) for _ in range(2)]
    for other in others:
        assert other.wait(60) == 0
    before.finish()
    assert len(hook.messages) == 3


def test_a_command_gets_the_message_on_standard_input(tmp_path: Path) -> None:
    target = tmp_path / "told.json"
    alerts = _alerts(tmp_path, _command("sh", "-c", f"cat > {target}"))
    alerts.tell(REFUSED, "a < b", which=1, round_index=2)
    alerts.finish()
    message = json.loads(target.read_text())
    assert (message["text"], message["event"]) == ("Regroup: run mini, round 2: a < b", "regroup.challenger.refused")


def test_a_command_that_fails_is_called_again_later(tmp_path: Path) -> None:
    warnings: list[str] = []
    mark = tmp_path / "second"
    command = _command("sh", "-c", f"test -e {mark} || {{ echo not yet >&2; touch {mark}; exit 3; }}")
    for _ in range(2):
        alerts = _alerts(tmp_path, command, warnings)
        alerts.tell(REFUSED, "no", which=1)
        alerts.finish()
    assert len(warnings) == 1
    assert "(not yet)" in warnings[0]
    assert Outbox(tmp_path).missing() == {}


def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "PATIENCE_S", 0.5)
    pid = tmp_path / "pid"
    warnings: list[str] = []
    alerts = _alerts(tmp_path, _command("sh", "-c", f"sleep 300 & echo $! > {pid}; wait"), warnings)
    alerts.tell(REFUSED, "no", which=1)
    alerts.finish()
    assert "no answer within" in warnings[0]
    until(lambda: not psutil.pid_exists(int(pid.read_text())))


def test_a_receiver_that_cannot_be_told_does_not_hold_up_the_others(tmp_path: Path, hook: Hook) -> None:
    warnings: list[str] = []
    alerts = _alerts(tmp_path, [*_command("/no/such/program"), *HOOKED], warnings)
    alerts.tell(REFUSED, "no", which=1)
    alerts.finish()
    assert hook.events == ["regroup.challenger.refused"]
    assert "No such file" in warnings[0]


def test_texts_of_models_cannot_break_a_message(tmp_path: Path, hook: Hook) -> None:
    alerts = _alerts(tmp_path)
    alerts.tell(REFUSED, "half \ud83d of a pair\nand a line", which=1, value=math.nan, low=-math.inf)
    alerts.finish()
    assert hook.messages[0]["text"].endswith("half ? of a pair\nand a line")
    assert hook.messages[0]["details"] == {"value": None, "low": None}


def test_a_torn_line_hides_no_other(tmp_path: Path, hook: Hook) -> None:
    _alerts(tmp_path, []).tell(REFUSED, "no", which=1)
    path = tmp_path / "runs" / "alerts.jsonl"
    with path.open("a") as file:
        file.write('{"alert": {"id": "x", "happe')
    alerts = _alerts(tmp_path)
    alerts.tell(REFUSED, "no", which=2)
    alerts.finish()
    assert len(Outbox(tmp_path).alerts()) == 2
    assert len(hook.messages) == 1


def test_what_could_not_be_sent_for_a_week_is_given_up(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(alerting.time, "time", lambda: now - 8 * 24 * 3600)
    hook.status = 500
    alerts = _alerts(tmp_path)
    alerts.tell(REFUSED, "no", which=1)
    alerts.finish()
    monkeypatch.setattr(alerting.time, "time", lambda: now)
    assert Outbox(tmp_path).missing() == {}


def test_a_full_disk_does_not_end_the_run_and_receivers_are_told_all_the_same(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nobody would hear of the run that fails because its disk is full, neither then nor later."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    warnings: list[str] = []
    alerts = _alerts(tmp_path, warnings=warnings)
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        alerts.tell(REFUSED, "no", which=1)
        until(lambda: len(hook.messages) == 1)
    assert warnings == [
        "challenger.refused could not be written down ([Errno 28] No space left on device); it is told by this process alone"
    ]
    alerts.tell("run.failed", "the disk is full", which=2)
    alerts.finish()
    assert [message["event"] for message in hook.messages] == ["regroup.challenger.refused", "regroup.run.failed"]
    later = _alerts(tmp_path)
    later.send()
    later.finish()
    assert len(hook.messages) == 2
    assert len(Outbox(tmp_path).alerts()) == 2


def test_what_can_never_be_told_is_known_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_HOOK", raising=False)
    assert str(receivers.fault_of("webhook:MY_HOOK")).startswith("webhook_env=MY_HOOK is not set; export")
    monkeypatch.setenv("MY_HOOK", f"hooks.example.org/{SECRET}")
    fault = str(receivers.fault_of("webhook:MY_HOOK"))
    assert "is no http or https address" in fault
    assert SECRET not in fault
    assert "no program here" in str(receivers.fault_of('command:["/no/such/program"]'))
    assert receivers.fault_of('command:["sh", "-c", "true"]') is None


def test_a_schedule_is_refused_whose_alerts_reach_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_HOOK", raising=False)
    with pytest.raises(ConfigError, match="alerts: webhook_env=MY_HOOK is not set; export"):
        receivers.refuse_faulty([*HOOKED, *HOOKED])
    receivers.refuse_faulty(_command("sh"))


def test_slack_reads_no_markup_in_a_text() -> None:
    assert webhook.slack_text("<!channel> a & b") == "&lt;!channel&gt; a &amp; b"
