#!/usr/bin/env bash
# Versions: prefect 3.8.8 with sqlalchemy 2.1.9 and with 2.0.58 (fastapi 0.150.0), Python 3.11. Seen on 2026-11-28.
# Guess: as pip lets Prefect 3.8.8 have SQLAlchemy 2.1, and flows run and deployments are made with it, schedules work with it too.
# Behaviour: the server takes a deployment with its schedule and answers as ever, but makes no run of it, now or later. The error stands
#   only in the server's log: SQLAlchemy 2.1 asks a hybrid property that an INSERT or UPDATE names for a function of its own.
# Output seen:
#   sqlalchemy 2.0.58: 1 schedule, 3 runs
#   sqlalchemy 2.1.9: 1 schedule, 0 runs
#   sqlalchemy.exc.InvalidRequestError: Can't evaluate bulk DML statement; please supply a bulk_dml decorated function
# Way out: sqlalchemy<2.1 beside prefect 3.8.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[[ -z "$server" ]] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
export PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS=1 PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
cat > program.py <<'PY'
import asyncio
import datetime
import sys

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import IntervalSchedule
from sqlalchemy import __version__


@flow
def hourly():
    pass


async def main():
    async with get_client() as client:
        for _ in range(60):
            if await client.api_healthcheck() is None:
                break
            await asyncio.sleep(1)
        schedule = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=datetime.timedelta(hours=1)), active=True)
        made = await client.create_deployment(flow_id=await client.create_flow(hourly), name="hourly", schedules=[schedule])
        runs = []
        for _ in range(15):
            await asyncio.sleep(1)
            runs = await client.read_flow_runs()
            if runs:
                break
        schedules = (await client.read_deployment(made)).schedules
    print(f"sqlalchemy {__version__}: {len(schedules)} schedule, {len(runs)} runs", flush=True)
    if bool(runs) != (sys.argv[1] == "runs"):
        sys.exit("the behaviour has changed")


asyncio.run(main())
PY
try() { # a version of sqlalchemy, and whether runs or nothing is to be seen
    venv/bin/pip install --quiet --disable-pip-version-check prefect==3.8.8 fastapi==0.150.0 "sqlalchemy==$1"
    local port
    port=$(python3.11 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    export PREFECT_HOME="$work/home-$1" PREFECT_API_URL="http://127.0.0.1:$port/api"
    venv/bin/prefect server start --port "$port" >"log-$1" 2>&1 &
    server=$!
    venv/bin/python program.py "$2"
    kill "$server"
    wait "$server" || true
    server=
}
try 2.0.58 runs
try 2.1.9 nothing
grep -m 1 -o "sqlalchemy.exc.InvalidRequestError: Can't evaluate bulk DML.*" log-2.1.9
