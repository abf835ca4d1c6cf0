"""The time zone of a schedule: the one that is asked for by name, or this machine's.

A schedule keeps a zone's rules by its name: where clocks go forward, a time that is left out runs an hour later, and where they go
back, a time that comes twice runs at its first.
"""

import difflib
import os
import zoneinfo
from collections.abc import Mapping
from pathlib import Path

from configs.errors import ConfigError

LOCALTIME, TIMEZONE = Path("/etc/localtime"), Path("/etc/timezone")
UTC = "UTC"
REMEDY = "name one by --timezone, for instance --timezone Europe/Berlin"


def known_zone(name: str) -> str:
    """`name` itself.

    Raises:
        ConfigError: it is no IANA name of a time zone.
    """
    if name in _zones():
        return name
    by_lower = {zone.lower(): zone for zone in _zones()}
    similar = difflib.get_close_matches(name.lower().replace(" ", "_"), by_lower, n=3)
    meant = " or ".join(by_lower[zone] for zone in similar) or "Europe/Berlin, America/New_York or UTC, for instance"
    raise ConfigError(f"--timezone {name!r} is no time zone; {meant} is one")


def local_zone(
    environment: Mapping[str, str] = os.environ, localtime: Path = LOCALTIME, timezone: Path = TIMEZONE
) -> str:
    """The IANA name of the time zone that TZ, or else /etc/localtime, sets for this machine.

    Raises:
        ConfigError: what is set has no such name.
    """
    if "TZ" in environment:
        return _zone_of_variable(environment["TZ"])
    if not localtime.exists():
        return UTC  # as the C library does
    if (zone := _zone_of_path(localtime.resolve())) is not None:
        return zone
    if (zone := _zone_of_content(localtime.read_bytes(), timezone)) is not None:
        return zone
    raise ConfigError(f"{localtime} does not say which time zone it holds; {REMEDY}")


def _zone_of_variable(value: str) -> str:
    text = value.removeprefix(":")
    if not text:
        return UTC
    if text in _zones():
        return text
    if (zone := _zone_of_path(Path(text))) is not None:
        return zone
    raise ConfigError(f"TZ={value!r} is no name of a time zone, which a schedule needs; {REMEDY}")


def _zone_of_path(path: Path) -> str | None:
    """The zone of a file of the time zone database, `.../zoneinfo/Europe/Berlin`."""
    _, found, name = path.as_posix().partition("/zoneinfo/")
    name = name.removeprefix("posix/").removeprefix("right/")
    return name if found and name in _zones() else None


def _zone_of_content(data: bytes, timezone: Path) -> str | None:
    """A zone whose file holds `data`, preferably the one that /etc/timezone names: that file may be out of date."""
    named = timezone.read_text(encoding="utf-8", errors="replace").strip() if timezone.is_file() else UTC
    for zone in (named, UTC, *sorted(_zones())):
        files = [Path(folder) / zone for folder in zoneinfo.TZPATH]
        if zone in _zones() and any(file.is_file() and file.read_bytes() == data for file in files):
            return zone
    return None


def _zones() -> set[str]:
    return zoneinfo.available_timezones() - {"localtime", "posixrules", "Factory"}
