"""Writes `compare.html`: a comparison on one self-contained page, made from the folders of its members alone."""

from __future__ import annotations

from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from configs.disk.files import write_atomic
from configs.schema.comparing.compare import Comparison
from grpo_train.measuring.retention.changes import name_of
from tasks.comparing.analysis import Runs
from tasks.comparing.curves import panels
from tasks.comparing.result import Compared
from tasks.comparing.words import notes, reached, seeds_told, verdicts
from tasks.showing.figures import figures
from tasks.showing.report import MISSING, estimate, number

PAGE = "compare.html"


def write_page(folder: Path, comparison: Comparison, result: Compared, best: Runs) -> Path:
    """Write the page of the result, with curves of the members at each method's best factor; returns its path."""
    path = folder / PAGE
    write_atomic(path, render(comparison, result, best).encode(errors="replace"))
    return path


def _measured(result: Compared) -> dict[str, tuple[str, str]]:
    """{name: (suite, measure)} of the old abilities that were measured."""
    pairs = [
        (suite, measure)
        for method in result.methods
        for suite, measures in method.retention.items()
        for measure in measures
    ]
    return {name_of(*pair): pair for pair in pairs}


def count(value: float | None) -> Markup:
    """A number in whole and in thousands, `5,335`."""
    return MISSING if value is None else Markup('<data value="{}">{}</data>').format(repr(value), f"{value:,.0f}")


def render(comparison: Comparison, result: Compared, best: Runs) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("tasks.comparing", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "estimate": estimate, "count": count}
    methods = comparison.compare.model_dump(mode="json", include={"methods"})
    return environment.get_template("compare.html.jinja").render(
        result=result,
        verdicts=list(verdicts(result)),
        seeds_told=seeds_told,
        notes=notes(result),
        reached=reached,
        retention=_measured(result),
        missing=MISSING,
        phases=list(dict.fromkeys(name for cost in result.seconds.values() for name in cost.by_phase)),
        figures=figures(panels(best), label="methods by generated tokens, with a band over seeds"),
        methods=yaml.safe_dump(methods, sort_keys=False),
        members=[run.member.name for runs in best.values() for run in runs],
    )
