"""The time zone of a schedule."""

from __future__ import annotations

import asyncio
import datetime
import shutil
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo

import pytest
from prefect.server.schemas.schedules import CronSchedule

from configs.errors import ConfigError
from flows.serving.timezones import known_zone, local_zone

DATABASE = next(Path(folder) for folder in TZPATH if Path(folder).is_dir())


@pytest.mark.parametrize(
    ("value", "zone"),
    [
        ("Asia/Kolkata", "Asia/Kolkata"),
        (":Pacific/Auckland", "Pacific/Auckland"),
        ("/usr/share/zoneinfo/America/Lima", "America/Lima"),
        ("EST5EDT", "EST5EDT"),
        ("", "UTC"),
    ],
)
def test_tz_comes_first(tmp_path: Path, value: str, zone: str) -> None:
    assert local_zone({"TZ": value}, tmp_path / "localtime") == zone


@pytest.mark.parametrize("value", ["CET-1CEST,M3.5.0,M10.5.0/3", "<+03>-3", "Mars/Olympus"])
def test_a_rule_without_a_name_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"TZ='.*no name of a time zone.*--timezone Europe/Berlin"):
        local_zone({"TZ": value}, tmp_path / "localtime")


def test_without_tz_the_machines_link_tells(tmp_path: Path) -> None:
    link = tmp_path / "localtime"
    assert local_zone({}, link) == "UTC"
    link.symlink_to(DATABASE / "Europe/Lisbon")
    assert local_zone({}, link) == "Europe/Lisbon"


def test_a_copied_file_is_known_by_what_it_holds_whatever_the_name_beside_it_says(tmp_path: Path) -> None:
    """As in a container that has the host's file, and its image's /etc/timezone."""
    shutil.copy(DATABASE / "Africa/Nairobi", tmp_path / "localtime")
    (tmp_path / "timezone").write_text("Etc/UTC\n")
    zone = local_zone({}, tmp_path / "localtime", tmp_path / "timezone")
    assert (DATABASE / zone).read_bytes() == (DATABASE / "Africa/Nairobi").read_bytes()
    (tmp_path / "timezone").write_text("Africa/Nairobi\n")
    assert local_zone({}, tmp_path / "localtime", tmp_path / "timezone") == "Africa/Nairobi"
    (tmp_path / "localtime").write_bytes(b"TZif of no zone")
    with pytest.raises(ConfigError, match=r"localtime does not say which time zone it holds; name one by --timezone"):
        local_zone({}, tmp_path / "localtime", tmp_path / "timezone")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("europe/berlin", "Europe/Berlin"),
        ("America/New York", "America/New_York"),
        ("+02:00", "UTC"),
        ("localtime", "UTC"),
    ],
)
def test_a_name_that_is_none_is_refused_with_one_that_is(name: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=rf"--timezone '.*' is no time zone; .*{remedy}"):
        known_zone(name)
    assert known_zone(remedy) == remedy


@pytest.mark.parametrize(
    ("cron", "first", "times"),
    [
        # clocks go forward from 02:00 to 03:00 on 2026-03-29, and back from 03:00 to 02:00 on 2026-10-25
        ("30 2 * * *", "2026-03-28", ["2026-03-28T02:30+01", "2026-03-29T03:30+02", "2026-03-30T02:30+02"]),
        ("30 2 * * *", "2026-10-24", ["2026-10-24T02:30+02", "2026-10-25T02:30+02", "2026-10-26T02:30+01"]),
        ("0 9 * * 0", "2026-03-22", ["2026-03-22T09:00+01", "2026-03-29T09:00+02", "2026-04-05T09:00+02"]),
    ],
)
def test_a_schedule_keeps_local_time_when_clocks_change(cron: str, first: str, times: list[str]) -> None:
    """No day is left out, and none runs twice."""
    zone = ZoneInfo("Europe/Berlin")
    start = datetime.datetime.fromisoformat(first).replace(tzinfo=zone)
    dates = asyncio.run(CronSchedule(cron=cron, timezone=zone.key).get_dates(3, start=start))
    assert [date.astimezone(zone).isoformat(timespec="minutes").removesuffix(":00") for date in dates] == times
