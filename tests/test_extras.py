"""Every extra of pyproject.toml can be installed beside the rest; `make extras` asks pip and the index the same."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.paths import ROOT

EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
LOCKED = {canonicalize_name(line.partition("==")[0]) for line in (ROOT / "requirements.lock").read_text().splitlines()}


def faults(requirement: Requirement, seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """What the environment, which is made from requirements.lock, lacks of a requirement and of all that it requires."""
    name = canonicalize_name(requirement.name)
    if (name, frozenset(requirement.extras)) in seen:
        return
    seen.add((name, frozenset(requirement.extras)))
    try:
        found = distribution(name)
    except PackageNotFoundError:
        yield f"{requirement} is not in requirements.lock"
        return
    if name not in LOCKED:
        yield f"{requirement} is installed, but not in requirements.lock"
    if not requirement.specifier.contains(found.version, prereleases=True):
        yield f"{requirement} does not admit the {found.version} of requirements.lock"
    for text in found.requires or []:
        needed = Requirement(text)
        if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in (*requirement.extras, "")):
            yield from faults(needed, seen)


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_an_extra_and_all_that_it_requires_is_in_the_lock(extra: str) -> None:
    seen: set[tuple[str, frozenset[str]]] = set()
    assert [fault for text in EXTRAS[extra] for fault in faults(Requirement(text), seen)] == []


def test_vllm_has_an_environment_of_its_own() -> None:
    """`trl[vllm]`, which was an extra, has no solution beside Prefect: the two want other versions of fastapi."""
    told = [fault for fault in faults(Requirement("trl[vllm]"), set()) if fault.startswith("vllm")]
    assert len(told) == 1
    assert told[0].endswith("is not in requirements.lock")
