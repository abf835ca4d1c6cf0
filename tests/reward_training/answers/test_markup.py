"""What is taken off a text, one thing at a time, and that the readers of answers see through all of it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_training.answers import markup
from reward_training.answers.arithmetic import equations
from reward_training.answers.checkers import chosen, exact, normalised, numeric
from reward_training.answers.finding.committed_number import committed_number
from reward_training.answers.finding.final_answer import final_answer
from reward_training.answers.values.quantity import Quantity, quantity

FUNCTIONS: list[Callable[[str], str]] = [
    markup.without_formatting_tags, markup.tags_as_spaces, markup.code_and_bold_as_spaces, markup.without_bold, markup.unwrapped,
    markup.without_phantoms, markup.without_maths_delimiters, markup.without_inline_delimiters, markup.spaces, markup.thousands,
    markup.degrees, markup.unescaped, markup.operators, markup.fractions_of_numbers, markup.fractions_in_brackets,
]  # fmt: skip
WRAPPERS = ["text", "mathrm", "mathbf", "textbf", "mbox", "operatorname"]
PLAIN = st.text(alphabet="abcXYZ 0123456789.,:;()[]+-/=?!\n", max_size=40)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@given(text=PLAIN)
def test_text_without_markup_comes_back_as_it_is(function: Callable[[str], str], text: str) -> None:
    assert function(text) == text


@given(st.text(alphabet="<>/bi 5*`", max_size=40))
def test_no_tag_for_formatting_is_left_however_they_are_nested(text: str) -> None:
    once = markup.without_formatting_tags(text)
    assert markup.without_formatting_tags(once) == once
    assert "<b>" not in once
    assert "</i>" not in once


@pytest.mark.parametrize("wrapper", WRAPPERS)
@given(content=PLAIN)
def test_the_content_of_a_wrapper_is_kept(wrapper: str, content: str) -> None:
    assert markup.unwrapped(f"\\{wrapper}{{{content}}}") == content
    assert markup.unwrapped(f"5\\{wrapper} {{{content}}}", gap=" ") == f"5 {content}"


@pytest.mark.parametrize(
    ("function", "text", "result"),
    [
        (markup.tags_as_spaces, "<p>5</p><x y=1>", " 5  "),
        (markup.code_and_bold_as_spaces, "```text\n**5** `x`", " \n 5   x "),
        (markup.without_phantoms, r"5\phantom{0}\hphantom {x}", "5"),
        (markup.without_maths_delimiters, "$$5$$", "5"),
        (markup.without_maths_delimiters, r"\[ 5 \]", "5"),
        (markup.without_maths_delimiters, "$5", "$5"),
        (markup.without_maths_delimiters, "$", "$"),
        (markup.without_inline_delimiters, r"so \(5\)", "so 5"),
        (markup.spaces, r"5\,m\;s\ x\!", "5 m s x "),
        (markup.thousands, r"1\,000\;000 {,}5", "1,000,000 {,}5"),
        (markup.degrees, r"20 ^{\circ}C, 5^\circ", "20°C, 5°"),
        (markup.unescaped, r"5\%~of \$3", "5% of $3"),
        (markup.operators, r"2\times3\cdot x\div 4 + \cdots", r"2*3* x/ 4 + \cdots"),
        (markup.fractions_of_numbers, r"\frac{-1.5}{2} \tfrac{a}{b}", r"-1.5/2 \tfrac{a}{b}"),
        (markup.fractions_of_numbers, r"2 \frac{1}{2}", "2 1/2"),
        (markup.fractions_in_brackets, r"\dfrac{x}{2}\frac12", r"(x)/(2)\frac12"),
    ],
)
def test_one_thing_at_a_time(function: Callable[[str], str], text: str, result: str) -> None:
    assert function(text) == result


MARKS = [
    "{}",
    "**{}**",
    "*{}*",
    "`{}`",
    "_{}_",
    '"{}"',
    "'{}'",
    "\u201c{}\u201d",
    "${}$",
    "$${}$$",
    "**${}$**",
    "{}.",
    " {}\n",
]
DELIMITERS = [r"\({}\)", r"\[{}\]", "<b>{}</b>", "<i><u>{}</u></i>", "<<b>b>{}"]
WRAPPINGS = [f"\\{wrapper}{{{{{{}}}}}}" for wrapper in WRAPPERS]


@pytest.mark.parametrize("decoration", MARKS + DELIMITERS + WRAPPINGS)
@pytest.mark.parametrize(
    "number", ["7", "-1,250.5", "3/4", "2 1/2", "15 cm", r"1\,000", r"5\%", r"3 \times 10^4", r"20^\circ"]
)
def test_a_decorated_number_is_the_number(number: str, decoration: str) -> None:
    plain = quantity(number)
    assert plain is not None
    assert quantity(decoration.format(number)) == plain


@pytest.mark.parametrize("decoration", MARKS + WRAPPINGS)
@pytest.mark.parametrize("text", ["B", "(B)", "B) Rome", "Rome"])
def test_a_decorated_choice_is_the_choice(text: str, decoration: str) -> None:
    assert chosen(decoration.format(text), {"A": "Madrid", "B": "Rome"}) == "B"


@pytest.mark.parametrize("fraction", [r"\frac{3}{8}", r"\dfrac{3}{8}", r"\tfrac{3}{8}"])
def test_every_size_of_a_fraction_is_read_in_every_place(fraction: str) -> None:
    """\\dfrac{3}{8} in running text was read as 8 once, and no sum with it was checked."""
    assert committed_number(f"So the share is ${fraction}$.") == fraction
    assert numeric(fraction, "3/8")
    assert equations(f"{fraction} + 1 = 1.375") == [True]
    assert equations(f"{fraction} + 1 = 1.5") == [False]
    assert quantity(fraction) == quantity("3/8") == Quantity(Fraction(3, 8))


@pytest.mark.parametrize("gap", ["", " ", r"\,", r"\;", r"\ ", r"\!"])
def test_sums_are_checked_through_latex(gap: str) -> None:
    for times in (r"\times", r"\cdot", "*", "×", "·"):
        assert equations(f"1{{,}}250{gap}{times} 4{gap}={gap}**5,000**") == [True]
        assert equations(f"1{{,}}250{gap}{times} 4{gap}={gap}**5,001**") == [False]
    assert equations("1,250 x 4 = 5,000, 3x4=13") == [True, False]
    assert equations(rf"9{gap}\div 3{gap}= \(3\)") == [True]


def test_digits_of_any_script_are_summed() -> None:
    assert equations("๓ × ๕ = ๑๕") == [True]
    assert equations("½ + ½ = 2") == [False]
    assert equations("5 + 4 = 3²") == []  # nothing computes powers


def test_text_is_compared_without_html_and_emphasis() -> None:
    assert normalised("**<b>Paris</b>**.") == "paris"
    assert exact("`Paris`", "<i>Paris</i>")
    assert not exact('"Paris"', "Paris")  # quotation marks are part of a text


def test_wrapped_contents_are_the_same_answer() -> None:
    assert final_answer(r"\boxed{\text{Oslo}} $\boxed{\mathrm{Oslo}}$", "boxed") == r"\mathrm{Oslo}"
    assert final_answer(r"\boxed{\text{Oslo}} \boxed{\text{Rome}}", "boxed") == r"\text{Oslo}, \text{Rome}"
