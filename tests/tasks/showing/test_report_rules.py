"""Rules of the page that a browser's accessibility checks (axe-core) and narrow screens ask for.

The rules are checked on the text of the page; what a browser computes itself, such as the width that a table takes, is
covered by making every region that could scroll reachable by the keyboard.
"""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from tasks.showing.report import write_report
from tests.tasks.showing.synthetic_run import write_problems, write_run

SVG_WIDTH_PT = 260
"""at most as wide as a telephone's screen, so that its text is not scaled down there"""


class Elements(HTMLParser):
    """The attributes of all elements, by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.by_tag: dict[str, list[dict[str, str]]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.by_tag.setdefault(tag, []).append({name: value or "" for name, value in attrs})

    @property
    def all(self) -> list[dict[str, str]]:
        return [attributes for every in self.by_tag.values() for attributes in every]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_run(tmp_path_factory.mktemp("run"))
    write_problems(folder)
    mlflow = {"tracking_uri": "https://mlflow.example.org/", "experiment_id": "3", "run_id": "0123456789abcdef"}
    return write_report(folder, mlflow).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def elements(text: str) -> Elements:
    return Elements(text)


def test_what_may_scroll_is_reached_by_the_keyboard_and_has_a_name(elements: Elements) -> None:
    scrolling = [div for div in elements.by_tag["div"] if div.get("class") == "scroll"] + elements.by_tag["pre"]
    assert len(scrolling) > 10
    assert {(element.get("tabindex"), element.get("role")) for element in scrolling} == {("0", "group")}
    assert all(element["aria-label"] for element in scrolling)


def test_every_table_stands_in_a_region_that_scrolls(text: str) -> None:
    assert len(re.findall(r"<table", text)) == len(re.findall(r'<div class="scroll"[^>]*><table', text)) > 5


def test_every_figure_is_one_panel_with_a_name_of_its_own(text: str, elements: Elements) -> None:
    drawn = elements.by_tag["svg"]
    assert len(drawn) == len(elements.by_tag["figure"]) > 15
    assert {element["role"] for element in drawn} == {"img"}
    names = Counter(element["aria-label"] for element in drawn)
    assert [name for name, count in names.items() if count > 1 or not name] == []


def test_figures_stand_in_one_column_where_there_is_no_room_for_two(text: str, elements: Elements) -> None:
    columns = re.search(r"\.figures \{[^}]*minmax\(min\(100%, (\d+)px\), 1fr\)", text)
    assert columns is not None
    assert 2 * int(columns[1]) > 552  # the width of MLflow's pane for artifacts, without the page's margins
    widths = [float(element["viewbox"].split()[2]) for element in elements.by_tag["svg"]]
    assert max(widths) <= SVG_WIDTH_PT
    assert min(widths) == max(widths)
    sizes = [float(size) for size in re.findall(r'<text style="font[^"]*?([\d.]+)px', text)]
    assert sizes
    assert min(sizes) >= 7  # points of the drawing, which is shown at 1.3 px each or more


def test_ids_are_unique_and_what_is_referred_to_is_there(text: str, elements: Elements) -> None:
    ids = Counter(element["id"] for element in elements.all if "id" in element)
    assert [name for name, count in ids.items() if count > 1] == []
    referred = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert len(referred) > 50
    assert set(referred) <= set(ids)


def test_headings_descend_by_one(text: str) -> None:
    levels = [int(level) for level in re.findall(r"<h(\d)", text)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_links_have_words_and_lead_out_in_a_new_window_only(text: str, elements: Elements) -> None:
    links = elements.by_tag["a"]
    outside = [link for link in links if not link["href"].startswith("#")]
    assert [link["href"] for link in outside] == [
        "https://mlflow.example.org/#/experiments/3/runs/0123456789abcdef?workflowType=machine_learning"
    ]
    assert all((link["target"], link["rel"]) == ("_blank", "noopener noreferrer") for link in outside)
    assert all(words.strip() for words in re.findall(r"<a [^>]*>(.*?)</a>", text))


def _luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_computed_as_wcag_does() -> None:
    assert _contrast("#000000", "#ffffff") == 21
    assert _contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "soft", "good", "bad", "link"])
def test_texts_have_the_contrast_of_level_aaa(text: str, scheme: int, name: str) -> None:
    palette = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", text)]
    assert len(palette) == 2
    colours = palette[scheme]
    assert _contrast(colours[name], colours["page"]) >= 7
    if name in ("ink", "soft"):
        assert _contrast(colours[name], colours["panel"]) >= 7
