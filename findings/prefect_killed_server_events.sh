#!/usr/bin/env bash
# Versions: prefect 3.9.1, Python 3.11. Seen on 2026-11-30.
# Guess: what Prefect's server has answered with success is in its database, as a flow run's state is: a server that is killed afterwards and started again on
#   the same database still has it.
# Behaviour: POST /api/events answers 204 when the event is in a queue in the server's memory, from which it is written after up to 5 s. A server that is killed
#   within that time has lost it, and the client, which had its 204, tells it never again. Task runs have no other way to the server than such events: the
#   last one before a kill stays Running for ever, below a flow run that is Completed. A flow run's state, set at the same moment, is there.
# Output seen:
#   killed at once: event answered 204, kept 0 of 1; flow run's state answered 201, kept COMPLETED
#   killed 12 s later: event answered 204, kept 1 of 1; flow run's state answered 201, kept COMPLETED
# Way out: send the events of the last seconds again after a server was away: they are known by their ids, and doubles are dropped. Or stop the server by SIGTERM.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check prefect==3.9.1
export PREFECT_HOME="$work/home" PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 PREFECT_LOGGING_LEVEL=ERROR
cat > try.py <<'PY'
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from datetime import datetime, timezone


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self):
        self.url = f"http://127.0.0.1:{(port := free_port())}/api"
        command = ["-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(port)]
        self.process = subprocess.Popen([sys.executable, *command, "--log-level", "error", "--lifespan", "on"])
        for _ in range(600):
            try:
                if self.ask("GET", "/health")[0] == 200:
                    return
            except OSError:
                time.sleep(0.3)
        sys.exit("the server did not start")

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


def tried(pause_s):
    server = Server()
    event, name = str(uuid.uuid4()), f"f-{uuid.uuid4()}"
    flow = server.ask("POST", "/flows/", {"name": name})[1]["id"]
    run = server.ask("POST", "/flow_runs/", {"flow_id": flow, "name": name})[1]["id"]
    time.sleep(8)  # a flush has just been, and services have started
    told = server.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "COMPLETED"}, "force": True})[0]
    occurred = datetime.now(timezone.utc).isoformat()
    resource = {"prefect.resource.id": f"example.{event}"}
    answered = server.ask("POST", "/events", [{"id": event, "occurred": occurred, "event": "example.done", "resource": resource}])[0]
    time.sleep(pause_s)
    server.kill()
    server = Server()
    time.sleep(8)
    wanted = {"filter": {"occurred": {"since": "2020-01-01T00:00:00Z"}, "id": {"id": [event]}}}
    kept = len(server.ask("POST", "/events/filter", wanted)[1]["events"])
    state = server.ask("GET", f"/flow_runs/{run}")[1]["state_type"]
    server.kill()
    return answered, kept, told, state


ways = {"killed at once": 0, "killed 12 s later": 12}
found = {}
for way, pause_s in ways.items():
    found[way] = answered, kept, told, state = tried(pause_s)
    print(f"{way}: event answered {answered}, kept {kept} of 1; flow run's state answered {told}, kept {state}")
if list(found.values()) != [(204, 0, 201, "COMPLETED"), (204, 1, 201, "COMPLETED")]:
    sys.exit("the behaviour has changed")
PY
venv/bin/python try.py
