"""Problems of reasoning-gym's families: the library's own, and those of a small library that misbehaves when asked to."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import ConfigError
from configs.schema.problems import ReasoningGymSource
from grpo_train.problems import families
from grpo_train.problems.families import read_families
from grpo_train.problems.raw_problem import RawProblem


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    families._written.cache_clear()
    yield
    families._written.cache_clear()


def _family(family: str, size: int, /, **options: Any) -> list[RawProblem]:
    return read_families([ReasoningGymSource(family=family, size=size, options=options)])[0]


def test_family_gives_distinct_questions_with_what_its_scorer_needs() -> None:
    problems = _family("gcd", 50, min_value=1, max_value=30)
    assert len({problem.text for problem in problems}) == 50
    first = problems[0]
    assert first.meta["family"] == "gcd"
    assert first.meta["entry"]["answer"] == first.answer
    assert json.loads(json.dumps(first.meta)) == first.meta
    assert (first.split, first.is_text, first.difficulty) == (None, False, None)


def test_family_that_runs_dry_gives_fewer_than_asked() -> None:
    # two factors of one digit: at most 10 x 10 questions
    assert 50 < len(_family("products", 5000, min_terms=2, max_terms=2, min_digits=1, max_digits=1)) <= 100


def test_size_only_cuts_what_a_family_gives() -> None:
    assert _family("chain_sum", 5) == _family("chain_sum", 20)[:5]


def test_numeric_difficulty_of_a_family_is_kept() -> None:
    assert _family("gsm_symbolic", 1)[0].difficulty == 1.0


@pytest.mark.parametrize(
    ("family", "options", "remedy"),
    [
        ("chainsum", {}, "did you mean chain_sum"),
        ("chain_sum", {"terms": 2}, r"no options \['terms'\]; its options are .*max_terms"),
        ("chain_sum", {"size": 2}, r"no options \['size'\]"),
        ("chain_sum", {"min_terms": 5, "max_terms": 2}, "max_terms must be >= min_terms"),
        ("chain_sum", {"min_terms": "two"}, "refuses options"),
    ],
)
def test_wrong_family_or_option_names_the_valid_ones(family: str, options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        _family(family, 3, **options)


# ---- the same in each process ---------------------------------------------------------------------------------------

UNSTEADY = ["isomorphic_strings", "ransom_note", "polynomial_multiplication", "list_functions", "word_ladder", "acre"]
"""families that draw from sets of texts or from the generators of the process, and one that makes everything at the start"""


def test_problems_do_not_depend_on_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """They depended on the hash seed, and on what had been drawn from the global generators."""
    sources = [ReasoningGymSource(family=family, size=12, seed=5) for family in UNSTEADY]
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    first = read_families(sources)
    families._written.cache_clear()
    monkeypatch.setenv("PYTHONHASHSEED", "2")
    random.random()
    np.random.rand()  # noqa: NPY002 - the global generator is what the test is about
    assert [len(members) for members in first] == [12] * len(UNSTEADY)
    fewer = [source.model_copy(update={"size": 4}) for source in reversed(sources)]
    assert read_families(fewer)[::-1] == [rows[:4] for rows in first]


def test_checks_and_run_make_the_problems_once() -> None:
    sources = [ReasoningGymSource(family="chain_sum", size=3)]
    assert read_families(sources) == read_families(sources)
    assert (families._written.cache_info().hits, families._written.cache_info().misses) == (1, 1)


# ---- a library that misbehaves --------------------------------------------------------------------------------------

LIBRARY = """
import enum, os, random, time
from dataclasses import dataclass

@dataclass
class Config:
    size: int
    seed: int
    after: int = 0
    words: str = "abc"

    def validate(self):
        assert self.after >= 0

@dataclass
class Bare:
    size: int
    seed: int

class Family:
    def __init__(self, config):
        self.config = config
    def __getitem__(self, i):
        n = self.config.seed + i
        return {"question": f"Q{n}", "answer": str(n), "metadata": self.metadata(n)}
    def metadata(self, n):
        return {"difficulty": 0.25, "pair": (n, n)}

class Sets(Family):
    def metadata(self, n):
        return {"words": list(set("abcdefgh")), "draw": random.random()}

class Loops(Family):
    def metadata(self, n):
        while n >= self.config.after:
            pass
        return {}

class Repeats(Family):
    def __getitem__(self, i):
        entry = super().__getitem__(i)
        time.sleep(0.001)
        return entry | {"question": f"Q {min(i, 2)}"}

class Raises(Family):
    def metadata(self, n):
        return {} if n < self.config.after else {}["board"]

class Dies(Family):
    def metadata(self, n):
        print("nothing of this is a problem")
        os._exit(9)

class Ends(Family):
    def metadata(self, n):
        if n >= self.config.after:
            raise IndexError("no paths left")
        return {}

class Odd(Family):
    def metadata(self, n):
        return {"thing": object()}

class Empty(Family):
    def __getitem__(self, i):
        return super().__getitem__(i) | {"answer": ["", None, 5][i]}

DATASETS = {name.lower(): (kind, Config) for name, kind in list(globals().items()) if isinstance(kind, type)}
DATASETS["bare"] = (Family, Bare)
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reasoning_gym").mkdir()
    (tmp_path / "reasoning_gym" / "__init__.py").touch()
    (tmp_path / "reasoning_gym" / "factory.py").write_text(LIBRARY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.usefixtures("library")
def test_hash_seed_and_generators_are_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    first = _family("sets", 3)
    families._written.cache_clear()
    monkeypatch.setenv("PYTHONHASHSEED", "2")
    assert _family("sets", 3) == first
    drawn = [problem.meta["entry"]["metadata"]["draw"] for problem in first]
    assert drawn == [random.Random(seed).random() for seed in range(3)]


@pytest.mark.usefixtures("library")
def test_a_family_without_validation_is_used() -> None:
    """`power_function` ended with an AttributeError."""
    assert [problem.answer for problem in _family("bare", 3)] == ["0", "1", "2"]


@pytest.mark.usefixtures("library")
def test_empty_answer_is_an_answer_and_none_is_not() -> None:
    assert [problem.answer for problem in _family("empty", 3)] == ["", None, "5"]
    assert len({problem.key for problem in _family("empty", 3)}) == 3


@pytest.mark.usefixtures("library")
def test_meta_has_the_entry_and_options_where_there_are_any() -> None:
    entry = {"question": "Q0", "answer": "0", "metadata": {"difficulty": 0.25, "pair": {"$tuple": [0, 0]}}}
    assert _family("family", 1)[0].meta == {"family": "family", "entry": entry}
    assert _family("family", 1, words="xy")[0].meta == {"family": "family", "entry": entry, "options": {"words": "xy"}}
    assert _family("family", 1)[0].difficulty == 0.25


@pytest.mark.usefixtures("library")
def test_draws_beyond_a_block_go_on_with_the_next_seeds() -> None:
    assert [problem.answer for problem in _family("family", 2100)] == [str(n) for n in range(2100)]


@pytest.mark.usefixtures("library")
def test_a_family_at_its_end_gives_what_it_has() -> None:
    assert len(_family("ends", 5, after=3)) == 3


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("loops", {}, r"family 'loops' with options {} makes no question in 0.5 s; change the options"),
        ("loops", {"after": 2}, "makes 2 of 9 questions and no other one in 0.5 s; set size: 2, or change the options"),
        ("repeats", {}, "makes 3 of 9 questions and no other one in 0.5 s; set size: 3"),
        (
            "raises",
            {},
            "family 'raises' with options {} fails at its problem 0: KeyError: 'board'; change options or seed",
        ),
        ("raises", {"after": 4}, "fails at its problem 4: KeyError: 'board'"),
        ("ends", {}, "fails at its problem 0: IndexError: no paths left"),
        (
            "dies",
            {},
            r"family 'dies' with options {} ended its process \(exit code 9\): nothing of this is a problem; choose",
        ),
        (
            "odd",
            {},
            "family 'odd' gives a value of type builtins.object, which a problem file cannot hold; choose another",
        ),
        ("family", {"after": -1}, "refuses options {'after': -1}: assert self.after >= 0"),
        ("familiy", {}, "no family 'familiy'; did you mean family"),
    ],
)
def test_family_that_gives_no_problems_is_refused_by_name(
    family: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that loop hung the run; others ended it with a traceback."""
    ends_by_itself = family not in ("loops", "repeats")  # then the time does not matter, and a busy machine needs more
    monkeypatch.setattr(families, "LIMIT_S", 60 if ends_by_itself else 0.5)
    with pytest.raises(ConfigError, match=message):
        _family(family, 9, **options)


@pytest.mark.usefixtures("library")
def test_the_source_at_fault_is_named_among_others() -> None:
    sources = [ReasoningGymSource(family=name, size=2) for name in ("family", "odd", "sets")]
    with pytest.raises(ConfigError, match="family 'odd' gives a value of type"):
        read_families(sources)
    assert read_families([]) == []
