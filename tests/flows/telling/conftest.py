from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.telling import messenger, outbox, teller
from tests.flows.telling.fake_prefect import FakePrefect


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePrefect]:
    """A server that answers; the end of a process has no patience with one that does not."""
    monkeypatch.setattr(outbox, "PAUSE_S", 0.05)
    monkeypatch.setattr(teller, "PATIENCE_S", 8.0)
    monkeypatch.setattr(messenger, "TIMEOUT_S", 5.0)
    server = FakePrefect()
    server.start()
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        yield server
    teller.end()
    server.stop()
