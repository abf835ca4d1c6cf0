"""No call of `regroup` outlives its test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flows.whole_runs.tiny_run import end_calls


@pytest.fixture(autouse=True)
def _no_call_is_left() -> Iterator[None]:
    yield
    end_calls()
