"""Each kind of answer that a reward was once fooled by, or refused, on values that nobody's benchmark holds.

Right and wrong answers go the whole way: a response, the place of its answer, its value, the comparison.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_training.answers.checkers import choice
from tests.reward_training.answers.judging import accepts


def boxed(content: str) -> str:
    return f"So we get $\\boxed{{{content}}}$."


# ---- formulas -------------------------------------------------------------------------------------------------------

MATRIX = r"\begin{pmatrix}7 & -2 \\ 0 & 9\end{pmatrix}"


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("4ab + 9", ["4ab+9", "9 + 4 a b", r"4 \cdot a \cdot b + 9"], ["5ab + 9", "9", "4ab", "4ab + 8"]),
        (MATRIX, [MATRIX.replace(" ", ""), MATRIX.replace("pmatrix", "bmatrix")], ["9", MATRIX.replace("7", "8")]),
        (r"3\pi", [r"3\pi\text{ m}", r"\pi \cdot 3", r"3 \pi\ \mathrm{cm}^2"], ["3", r"\pi", r"4\pi\text{ m}"]),
        (r"5\sqrt{7}", [r"5 \sqrt 7", r"\sqrt{175}", "5*sqrt(7)"], ["5", "7", r"7\sqrt{5}"]),
        (r"\frac{x+2}{y}", [r"\dfrac{x + 2}{y}", "(x+2)/y", r"\left(x+2\right) / y"], ["x+2/y", "2"]),
        (r"\ln 6", [r"\ln 2 + \ln 3", r"\ln(6)"], [r"\ln 5", "6", r"\log_{10} 6"]),
        ("2^{12}", ["4096", r"4^{6}"], ["4095", "2", "12"]),
        (r"\cos 2x", [r"\cos^2 x - \sin^2 x", r"1 - 2\sin^2(x)"], [r"\cos x", r"\cos^2 x + \sin^2 x"]),
    ],
)
def test_a_formula_is_read_whole(gold: str, right: list[str], wrong: list[str]) -> None:
    """Unmarked LaTeX with a space in it was taken for prose once, and its last number counted."""
    assert [text for text in [gold, *right] if not accepts(gold, boxed(text))] == []
    assert [text for text in wrong if accepts(gold, boxed(text))] == []


@pytest.mark.parametrize("checker", ["math", "numeric"])
@pytest.mark.parametrize("answer", ["31y", "31 y", r"31\pi", "31ab", "31n", "y = 31n", "g(t) = 31 t"])
def test_a_variable_is_no_unit(answer: str, checker: str) -> None:
    assert not accepts("31", boxed(answer), checker=checker)
    assert not accepts("31", answer, checker=checker)
    assert not accepts(answer, boxed("31"), checker=checker)


@pytest.mark.parametrize("checker", ["math", "numeric"])
@pytest.mark.parametrize("answer", ["31 kg", r"31\text{ m}", r"31\,\mathrm{s}", "31 apples", "31cm", "31 m^2", "31m²"])
def test_a_unit_is_no_variable(answer: str, checker: str) -> None:
    assert accepts("31", boxed(answer), checker=checker)


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("8 grams", ["8 g", "8 gram", r"8\text{ grams}", "8"], ["8 kg", "8 litres", "9 g"]),
        ("12 square metres", ["12 m^2", r"12\text{ m}^2", "12 square meters"], ["12 m", "12 square feet"]),
        ("50 miles per hour", ["50 mph", "50 mi/h"], ["50 km/h", "50 miles"]),
    ],
)
def test_units_are_compared(gold: str, right: list[str], wrong: list[str]) -> None:
    for checker in ("math", "numeric"):
        assert [text for text in right if not accepts(gold, f"<answer>{text}</answer>", checker=checker)] == []
        assert [text for text in wrong if accepts(gold, f"<answer>{text}</answer>", checker=checker)] == []


@pytest.mark.parametrize("checker", ["math", "numeric"])
def test_a_unit_in_a_sentence_counts(checker: str) -> None:
    assert accepts("9 metres", "The rope is 9 metres long.", checker=checker)
    assert not accepts("9 metres", "The rope is 9 yards long.", checker=checker)
    assert not accepts("9", "The rope is 9 yards long.", "How long is it in metres?", checker=checker)


@pytest.mark.parametrize(
    ("gold", "answer"), [("4.4e-29", "1e-21"), (".0000318", ".0000319"), ("1.6e-19", "1.7e-19"), ("2e-9", "0")]
)
def test_small_numbers_are_not_rounded(gold: str, answer: str) -> None:
    assert accepts(gold, boxed(gold))
    assert not accepts(gold, boxed(answer))


# ---- places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Final Answer: The final answer is $23$. I hope it is correct.",
        "The answer is as follows. Final answer: the answer is 23.",
        "**Final Answer:** The answer is $\\boxed{23}$. I hope it is correct.",
    ],
)
def test_a_phrase_within_a_phrase_is_one_place(text: str) -> None:
    assert accepts("23", text)
    assert not accepts("24", text)


@pytest.mark.parametrize(
    "content",
    [
        "one of 21, 22 and 23", r"22 \text{ and } 23", r"\text{at most } 23", "22 or 23", r"\text{not } 23", "between 20 and 23",
        "more than 23", "half of 23", r"\text{about half of } 23", "23 or more", "17, 23", "the 23 of them minus 1",
    ],
)  # fmt: skip
def test_prose_in_a_place_is_not_its_last_number(content: str) -> None:
    for checker in ("math", "numeric"):
        assert not accepts("23", boxed(content), checker=checker)
        assert not accepts("23", f"<answer>{content}</answer>", checker=checker)


@pytest.mark.parametrize(
    "content", ["There are 23 boats.", "She paid $23 in all.", "the total is 23", "It is 23 boats"]
)
def test_a_sentence_that_states_one_number_is_that_number(content: str) -> None:
    for checker in ("math", "numeric"):
        assert accepts("23", f"<answer>{content}</answer>", checker=checker)
        assert not accepts("22", f"<answer>{content}</answer>", checker=checker)


@pytest.mark.parametrize(
    ("gold", "text", "others"),
    [
        (r"4 \times 10^{5}", "The mass is $4 \\times 10^{5}$ kg.", ["5", "4", "10"]),
        (r"6\sqrt{11}", r"Its length is therefore \(6\sqrt{11}\).", ["11", "6"]),
        ("35", r"The angle is $35^\circ$.", ["36"]),
        (r"\frac{5}{9}", r"Hence the share is $\frac{5}{9}$ of the field.", ["9", "5"]),
        ("(2, -6)", "They meet at $(2, -6)$.", ["-6", "2", "(-6, 2)"]),
        ("7x - 1", "The derivative is $7x - 1$.", ["7x", "-1", "1"]),
    ],
)
def test_an_inline_formula_is_read_whole_where_no_place_is_marked(gold: str, text: str, others: list[str]) -> None:
    assert accepts(gold, text)
    assert [other for other in others if accepts(other, text)] == []


@pytest.mark.parametrize(("text", "gold"), [(r"\boxed 6", "6"), (r"\boxed6", "6"), (r"so $\boxed -4$.", "-4"), (r"\boxed\frac38", "3/8")])  # fmt: skip
def test_a_box_needs_no_braces(text: str, gold: str) -> None:
    assert accepts(gold, text, extract="boxed")
    assert not accepts("5", text, extract="boxed")


@pytest.mark.parametrize("gold", ["Lima", "No", "x+4", "(3, 8)", "3:45", r"\frac{2}{7}", "x = 9", r"\{1, 4\}"])
def test_a_bare_answer_needs_no_mark(gold: str) -> None:
    assert accepts(gold, gold)
    assert accepts(gold, f" {gold}\n")
    assert not accepts(gold, f"Not {gold}")
    assert not accepts(gold, "Quito")


@pytest.mark.parametrize(
    "text",
    [
        "The answer is C, it keeps its form.", "Therefore it is C.", "It must be (C).", "So, C.", "The answer is C, since it is baked.",
        "C is correct.", "I pick C.", "Answer: (C) clay",
    ],
)  # fmt: skip
def test_a_letter_in_prose_is_a_choice(text: str) -> None:
    assert accepts("C", text, checker="choice")
    assert not accepts("A", text, checker="choice")


@pytest.mark.parametrize("text", ["A pot is made of it.", "The answer is C, or perhaps D.", "The answer is C, not D, nor A, so glass.", "It is A good idea."])  # fmt: skip
def test_a_letter_that_is_only_a_word_or_one_of_several_is_none(text: str) -> None:
    assert not accepts("A", text, checker="choice")


@pytest.mark.parametrize(
    "text", ["So it is 42.", "6 times 7 gives it.\nSo there are 42 of them.", "42", "B) 42", "The result is 42"]
)
def test_a_number_names_the_choice_that_it_is(text: str) -> None:
    """With a letter looked for alone, a choice named by its number was none."""
    options = {"A": "41", "B": "42", "C": "43"}
    assert accepts("B", text, checker="choice", options=options)
    assert not accepts("A", text, checker="choice", options=options)


@pytest.mark.parametrize("text", ["C. Actually B", "C. Wait, D.", "C... or D", "C. On second thought, D."])
def test_a_letter_that_another_one_follows_does_not_count(text: str) -> None:
    assert not accepts("C", text, checker="choice")


def test_boxes_side_by_side_are_a_list() -> None:
    text = r"The roots are \boxed{2} and \boxed{-5}."
    assert accepts("-5, 2", text)
    assert not accepts("-5", text)
    assert not accepts("2", text)


# ---- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("(3,8)", ["(3, 8)", r"\left(3,8\right)", "x = 3, y = 8"], [r"\{3,8\}", "(8,3)", "[3,8]", "3,8", "8"]),
        ("(4,-6]", ["( 4 , -6 ]"], ["[4,-6]", "(4,-6)", "-6"]),
        (r"\{2, 9\}", [r"\{9, 2\}", "2, 9", r"x = 2 \text{ or } x = 9"], ["(2, 9)", r"\{2\}", r"\{2, 8\}"]),
        ("x^2-5x+3=0", ["2x^2-10x+6=0", "x^2 + 3 = 5x"], ["x^2-4x+3=0", "x^2-5x+3", "3"]),
        ("y=2x-7", ["2x - 7", "2x - y = 7", "y + 7 = 2x"], ["2", "2x", "-7", "y=2x+7", "z=2x-7"]),
        ("x=6", ["6", "6 = x"], ["y=6", "x=7"]),
        ("6", ["x=6", "n = 6"], ["x=7", "6x", "x^6"]),
        (r"(-\infty, 2) \cup [5, 8)", [r"[5,8) \cup (-\infty,2)", r"x < 2 \text{ or } 5 \le x < 8"], [r"(-\infty, 2) \cup (5, 8)", "8"]),
        ("x > 4", [r"(4, \infty)", "4 < x"], [r"x \ge 4", "x < 4", "4"]),
        ("17_5", ["17_{5}", "17"], ["17_6", "18_5"]),
    ],
)  # fmt: skip
def test_types_must_match(gold: str, right: list[str], wrong: list[str]) -> None:
    assert [text for text in [gold, *right] if not accepts(gold, boxed(text))] == []
    assert [text for text in wrong if accepts(gold, boxed(text))] == []


def test_order_counts_where_the_question_asks_for_one() -> None:
    assert accepts("4, -3", boxed("-3, 4"), "Find all roots.")
    assert not accepts("4, -3", boxed("-3, 4"), "Give them in descending order.")
    assert not accepts("4, -3", boxed("-3, 4"), "Which are a and b, respectively?")
    assert not accepts("4, -3", boxed("-3, 4"), "Give the ordered pair.")
    assert not accepts("4, -3", boxed("-3, 4"), "Give x, then y.")
    assert accepts("(4, -3), (-3, 4)", boxed("(-3, 4), (4, -3)"), "Find all ordered pairs.")


@pytest.mark.parametrize(
    ("gold", "wrong"),
    [("night", "thing"), ("BLUE", "LUBE"), (r"\text{May 12}", r"\text{June 12}"), ("4 and 7", "7 and 7"), ("ab", "ba"), ("tea for 2", "2")],
)  # fmt: skip
def test_words_are_compared_as_words(gold: str, wrong: str) -> None:
    assert accepts(gold, boxed(gold))
    assert not accepts(gold, boxed(wrong))


@pytest.mark.parametrize("checker", ["math", "numeric"])
@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\$51,\!927", "51,927"), (r"\$51,\! 927", "51927"), ("9/4", r"\frac94"), ("3/5", r"\frac {3}{5}"), ("2/7", r"\left(\frac{2}{7}\right)"),
        ("2/7", r"\cfrac{2}{7}"), ("11/4", r"2\frac{3}{4}"), ("0.6", r"\tfrac 3 5"), ("1500", r"1.5 \times 10^3"), ("-4", r"\left(-4\right)"),
    ],
)  # fmt: skip
def test_numbers_are_read_in_each_notation(gold: str, answer: str, checker: str) -> None:
    assert accepts(gold, boxed(answer), checker=checker)


def test_complex_numbers_take_spaces() -> None:
    assert accepts("8-3i", boxed("8 - 3 i"))
    assert not accepts("8-3i", boxed("8 + 3 i"))


@pytest.mark.parametrize(("gold", "answer"), [("1/3", "0.333333"), ("2/3", "0.666667"), ("1/6", "0.166667"), ("-5/7", "-0.7142857"), ("1/12", "0.083333")])  # fmt: skip
def test_rounding_goes_both_ways(gold: str, answer: str) -> None:
    for checker in ("math", "numeric"):
        assert accepts(gold, boxed(answer), checker=checker)
        assert accepts(answer, boxed(gold), checker=checker)


@pytest.mark.parametrize(
    ("gold", "answer"), [("1/3", "0.33"), ("2/3", "0.6667"), ("7", "7.0000001"), ("1/6", "0.166668")]
)
def test_fewer_digits_or_wrong_ones_are_no_rounding(gold: str, answer: str) -> None:
    for checker in ("math", "numeric"):
        assert not accepts(gold, boxed(answer), checker=checker)


def test_percent_is_a_hundredth() -> None:
    assert accepts("0.45", boxed(r"45\%"))
    assert accepts(r"45\%", boxed("0.45"))
    assert accepts("45", boxed(r"45\%"), "What percent is it?")
    assert not accepts("0.45", boxed(r"0.45\%"), "What share is it?")


def test_a_sum_that_the_question_has_as_well_is_no_answer() -> None:
    assert not accepts("34", boxed("16 + 18"), "What is 16 + 18?")
    assert accepts("2^{10}", boxed("2^{10}"), "Write 4^5 as a power of two, such as 2^{10}.")


# ---- properties -----------------------------------------------------------------------------------------------------

WHOLE = st.integers(-99, 99)
NONZERO = WHOLE.filter(bool)
SPACES = st.sampled_from(["", " ", "  ", r"\,", r"\ "])


@given(a=NONZERO, b=NONZERO, c=WHOLE, gaps=st.lists(SPACES, min_size=6, max_size=6))
@settings(deadline=None)
def test_white_space_in_a_formula_changes_nothing(a: int, b: int, c: int, gaps: list[str]) -> None:
    tokens = [str(a), "x", "^2", f"{b:+d}", "y", f"{c:+d}"]
    spaced = "".join(token + gap for token, gap in zip(tokens, gaps, strict=True))
    assert accepts("".join(tokens), boxed(spaced))
    assert not accepts("".join(tokens), boxed(spaced + "+1"))


@given(entries=st.lists(WHOLE, min_size=4, max_size=4), at=st.integers(0, 3), form=st.sampled_from(range(5)))
@settings(deadline=None)
def test_a_wrong_entry_anywhere_is_refused(entries: list[int], at: int, form: int) -> None:
    def written(values: list[int]) -> str:
        a, b, c, d = values
        forms = [
            rf"\begin{{bmatrix}}{a} & {b} \\ {c} & {d}\end{{bmatrix}}", f"({a}, {b}, {c}, {d})", f"{a}x^3 + {b}x^2 + {c}x + {d}",
            f"[{a}, {b}, {c}, {d}]", rf"\frac{{{a}x + {b}}}{{x^2 + {c * c + 1}}} + {d}",
        ]  # fmt: skip
        return forms[form].replace("+ -", "- ")

    changed = [value + (101 if index == at else 0) for index, value in enumerate(entries)]
    assert accepts(written(entries), boxed(written(entries)))
    assert not accepts(written(entries), boxed(written(changed)))


@given(top=st.integers(-500, 500), bottom=st.integers(2, 60))
@settings(deadline=None)
def test_a_fraction_is_accepted_in_each_notation(top: int, bottom: int) -> None:
    gold = f"{top}/{bottom}"
    sign = "-" if top < 0 else ""
    for answer in (rf"\frac{{{top}}}{{{bottom}}}", rf"{sign}\dfrac{{{abs(top)}}}{{{bottom}}}", rf"\left({top} / {bottom}\right)", f"{2 * top}/{2 * bottom}"):  # fmt: skip
        assert accepts(gold, boxed(answer))
        assert not accepts(f"{top + 1}/{bottom}", boxed(answer))


@given(first=WHOLE, second=WHOLE)
@settings(deadline=None)
def test_a_list_has_no_order_and_a_tuple_has_one(first: int, second: int) -> None:
    assert accepts(f"{first}, {second}", boxed(f"{second}, {first}"))
    assert accepts(f"({first}, {second})", boxed(f"({second}, {first})")) == (first == second)


@given(st.text(alphabet="0123456789xyab+-*/^_(){}[]\\frac sqrt,=<>.$ %and!|", max_size=60))
@settings(deadline=None)
def test_any_text_has_a_verdict(text: str) -> None:
    assert accepts("3", text) in (True, False)
    assert accepts(text or "x", boxed("3")) in (True, False)


@pytest.mark.parametrize(
    ("texts", "answer", "letter"),
    [
        (["$3$", "$5$"], "$5$", "B"),
        (["$3$", "$5$"], "5", "B"),
        (["$3", "$5"], "$5", "B"),
        (["$3", "$5"], "**$5**", "B"),
        (["$x^2$", "$x^3$"], "$x^3$", "B"),
        (["x<3", "x>3", "x=3"], "x > 3", "B"),
        (["x<3", "x>3", "x=3"], "x\u22643", None),
        (["1/2", "1:2", "1 2"], "1:2", "B"),
        (["Co", "CO", "CO2"], "CO", "B"),
        (["Co", "CO", "CO2"], "co", None),
        (["C", "C++", "C#"], "C#", "C"),
        (["C", "C++", "C#"], "B) C++", "B"),
        (["C", "C++", "C#"], "C", "C"),  # the letter that the question asks for
    ],
)
def test_the_text_of_a_choice_is_told_from_one_with_other_marks(
    texts: list[str], answer: str, letter: str | None
) -> None:
    choices = dict(zip("ABCD", texts, strict=False))
    assert {gold for gold in choices if choice(answer, gold, choices)} == ({letter} if letter else set())
