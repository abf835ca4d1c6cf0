"""Responses as models write them, right and wrong, the whole way from text to verdict."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reward_training.answers.judging import accepts

Case = tuple[str, str, bool, dict[str, Any]]

CASES: list[Case] = []


def right(gold: str, *texts: str, **settings: Any) -> None:
    CASES.extend((gold, text, True, settings) for text in texts)


def wrong(gold: str, *texts: str, **settings: Any) -> None:
    CASES.extend((gold, text, False, settings) for text in texts)


def boxed(*contents: str) -> list[str]:
    return [f"\\boxed{{{content}}}" for content in contents]


# phrases before a display, a heading or a block
right(
    "42",
    "So the final answer is:\n\n$$\n\\boxed{42}\n$$",
    "So the final answer is:\n\n\\[\n\\boxed{42}\n\\]",
    "The final answer is\n$$\n42\n$$",
    "Answer:\n\\[\n42\n\\]",
    "The answer is \\(\n42\n\\)",
    "Answer:\n```\n42\n```",
    "**Final Answer:**\n\n$42$",
    "**Final Answer:**\n\n42",
    "**Answer:**\n42",
    "**The final answer is**\n\n42",
    "**Final Answer:**\n\\[ 42 \\]",
)
right(
    r"\sqrt{13}",
    "**Final Answer**\n\n$\\sqrt{13}$",
    "### Answer\n\\sqrt{13}",
    "## Answer\n$\\sqrt{13}$",
    "Hence\n$$\n\\sqrt{13}\n$$",
    "we get\n\\[\n\\sqrt{13}.\n\\]",
    "The answer is\n$$\\sqrt{13}$$",
)
right("C", "**Final Answer:**\n\nC", checker="choice")
wrong("41", "**Final Answer:**\n\n$42$")

# remarks about the answer are no answers
for t in [
    "so our answer is correct.",
    "The answer is reasonable.",
    "The answer is unique.",
    "The answer is in simplest form.",
    "Final answer: see the box above.",
    "The answer is derived by adding the two.",
    "The answer is an integer.",
    "The answer is boxed above.",
    "The answer is given in dollars.",
]:
    right("42", "\\boxed{42} " + t, "<answer>42</answer>\n" + t)
right("42", "The answer is simple. \\boxed{42}", "We verify that the answer is right. \\boxed{42}")
right("4", "the answer to weeks: 28 / 7 = 4 weeks\n#### 4", "round the answer to two decimals: 4.00\n#### 4")

# words that do not withdraw
for t in [
    "Note: It must be positive.",
    "it should be positive",
    "I made sure of it.",
    "Hmm, that seems right.",
    "Actually, that agrees.",
    "Correction: none needed.",
    "no need to wait",
]:
    right("42", "\\boxed{42}. " + t)
right("42", "\\boxed{42}. It must be noted that x>0.")
wrong("0", "\\boxed{42}. It must be noted that x>0.")
wrong("42", "\\boxed{42}. Wait, it should be 43.", "\\boxed{42}. Correction: \\boxed{43}")

# choices
right(
    "C",
    "C) clay",
    "clay",
    "**C) clay**",
    "The answer is **C**: clay.",
    "C: clay",
    "Answer: \\(C\\)",
    "ANSWER :(Option C)",
    "The Answer is, C.",
    "故选C",
    "正确答案是C。",
    "故选：C。",
    checker="choice",
)
wrong("A", "C) clay", "clay", "故选C", checker="choice")
wrong("C", "C) steel", checker="choice")

# the last sentence
right("5", "Thus $a+b=5$.", "So $AB=5$.", "So $|AB| = 5$.", "So $\\log_2 32 = 5$.")
right("1/3", "So $P(A) = \\frac{1}{3}$.", "$P(A) = \\frac { 1 } { 3 }$.")
right(r"\sqrt{13}", "So $AB = \\sqrt{13}$.")
right(r"(2,\infty)", "So $x>2$.")
right("-3/2", "$m = - \\frac { 3 } { 2 }$.")
right("45", "We get $\\theta = 45^\\circ$.")
right("Yes", "Yes, because 7 is prime.")
right("1, -3", "Thus $x = 1$ or $x = -3$.")
right("1,2,3", "The solutions are $1$, $2$, and $3$.")
wrong("3", "The solutions are $1$, $2$, and $3$.")
wrong("2", "$m = - \\frac { 3 } { 2 }$.")
wrong("-3", "Thus $x = 1$ or $x = -3$.")

# notations
right("42", "所以答案是42。", "答案是 $42$。", "答：一共有42个。", "还剩42个苹果。")
right("6.02e23", "6.02 × 10²³", "It has 6.02 × 10²³ molecules.", "about 6.02 × 10^23.")
right(r"1-\mathrm{i}", *boxed("1-i"))
right("3+4i", *boxed(r"3+4\mathrm{i}"))
right(r"(2,\infty)", *boxed(r"\{x \mid x>2\}", r"\{x: x>2\}"))
right("[-1,3)", *boxed(r"x \geq -1 \text{ and } x < 3"))
right(r"\mathbb{R}", *boxed(r"\text{all real numbers}"))
right("no solution", *boxed("no solutions", r"\emptyset"))
right("3/4", *boxed(r"\frac{3}{4}\text{ or }0.75", r"{3 \over 4}", r"P(A \cap B)=\frac34", r"\mathbb{P}(A)=\frac34"))
right("1/3", *boxed(r"0.\overline{3}"))
right("4/11", *boxed(r"0.\overline{36}"))
right(
    "42", *boxed(r"\color{red}42", r"\textcolor{red}{42}", r"\large 42", r"\therefore 42", r"|A|=42", r"42\checkmark")
)
right(
    r"\begin{pmatrix}2\\-3\end{pmatrix}",
    *boxed("(2,-3)", r"\langle 2,-3\rangle", r"\vec{v} = \begin{pmatrix}2\\-3\end{pmatrix}"),
)
right("3:30 PM", *boxed(r"3:30\text{ p.m.}", "3:30 pm"))
right("1,000,000", "The answer is $1,\\!000,\\! 000$.")
right("5;10", "The answer is $5;10$.")
right("120", *boxed(r"{10 \choose 3}"))
right("2:3", "The ratio is 2:3.")

# degrees and percent belong to what stands before them
wrong(r"\sin 2", *boxed(r"\sin 2^\circ"))
wrong(r"2\cos 20", *boxed(r"2\cos 20^\circ"))
wrong("51", *boxed(r"1+50\%"))
right("1/2", *boxed(r"\sin 30^\circ"))
right(r"2-\sqrt3", *boxed(r"\tan 15^\circ"))
right("30", *boxed(r"30^\circ"))

# letters that are no units
wrong(r"3\mathrm{i}", *boxed("3"))
wrong("12", *boxed(r"12\mathrm{i}", r"12\text{x}", r"12\mathbf{v}", r"12\mathrm{e}"))
wrong(r"2\pi", *boxed(r"2\pi\text{r}", r"2\pi\,\mathrm{R}", r"2\pi h", r"2\pi s"))
wrong("3", "It is 3 x.")
wrong("12", "It is 12 pi.")

# repeating decimals
wrong(r"0.\overline{3}", *boxed("0", r"0.\overline{4}", "0x"))
wrong("0", *boxed(r"0.\overline{3}"))

# words that change a number
wrong(
    "42",
    *boxed(
        *[
            f"42\\text{{ {x}}}"
            for x in [
                "squared",
                "cubed",
                "factorial",
                "dozen",
                "hundred",
                "halves",
                "tenths",
                "minus one",
                "inverse",
                "excluded",
                "is impossible",
                "probably",
            ]
        ],
        r"42\text{k}",
        r"42\ldots",
        r"\text{a number near }42",
        r"\text{close to }42",
    ),
)
wrong(r"2\pi", *boxed(r"2\pi\text{ million}", r"2\pi\text{ plus one}"))
wrong(
    "3",
    *[
        f"<answer>{x}</answer>"
        for x in [
            "3 four",
            "3 / four",
            "3 over x",
            "3 choose x",
            "3 mod n",
            "3 below zero",
            "3 perhaps",
            "3 else four",
            "3 also four",
            "3 point five",
            "3 minus x",
        ]
    ],
)
wrong("5", "<answer>5 six</answer>")

# numbers that are parts of something else
wrong("-3", "The point is (2, -3).", "The roots are 1 and -3.", "x = 2, y = -3.")
wrong(
    "3",
    "The line is y = 2x + 3.",
    "The ratio is 2:3.",
    "The interval is [0, 3].",
    "The set is {1, 2, 3}.",
    "2√3.",
    "x ≥ 3.",
    "so n ≡ 2 (mod 3)",
    "n is divisible by 3",
    "It is log 3.",
    "Negative 3.",
    "$m = - \\frac { 2 } { 3 }$",
)
right("(2,-3)", "The point is (2, -3).")
right("1,-3", "The roots are 1 and -3.")
right("[0,3]", "The interval is [0, 3].")

# work that was not done
wrong("42", *boxed("25+17", "(17+25)", "17.0+25", "{17}+{25}", "x=17+25"), question="What is 17 + 25?")
wrong("42", *boxed("17+25"), question="Tom has 17 and gets 25 more.")
wrong("391", *boxed(r"17 \cdot 23"), question=r"Compute $17 \times 23$.")
wrong("6", *boxed(r"\gcd(12,18)"))
wrong("x^2+5x+6", *boxed("(x+2)(x+3)"), question="Expand $(x+2)(x+3)$.")
wrong(r"2\sqrt3", *boxed(r"\sqrt{12}"), question=r"Simplify $\sqrt{12}$.")
right("1024", *boxed("2^{10}"))

# units and percent
wrong("25", *boxed(r"25\%"), question="How many pupils are there?")
right("25", *boxed(r"25\%"), question="What percent?")
wrong(r"\$15", *boxed("15 euros", r"15\text{ cents}", r"15\%"))
right(r"\$15", *boxed("15", "15 dollars", r"\$15.00"))
wrong("5 meters", *boxed(r"\$5"))
wrong("5", *boxed(r"5\text{ kg}", r"5\text{ seconds}"), question="How many meters is it?")
right("5", *boxed(r"5\text{ m}"), question="How many meters is it?")

# bases
wrong("17", *boxed("17_5", "17_9"))
wrong("17_5", *boxed("17_6"))
right("17_5", *boxed("17"))

# names
wrong("f(2)=5", *boxed("f(3)=5", "f(5)=2", "g(2)=5", "1=1"))
wrong("AB=5", *boxed("CD=5"))
right("f(2)=5", *boxed("5"))

# and, or
wrong(r"(-\infty,1)\cup(3,\infty)", *boxed(r"x<1 \text{ and } x>3"))
right(r"(-\infty,1)\cup(3,\infty)", *boxed(r"x<1 \text{ or } x>3"))

# several answers at once
wrong("7", r"\boxed 7 or 8", r"\boxed 7, 8", r"\boxed7^2", r"\boxed{7} \times 2", extract="boxed")
wrong(
    "42",
    '{"answer": 41, "answer": 42}',
    '{"answer": {"value": 42}}',
    "First option: \\boxed{41}\nSecond option: \\boxed{42}",
    "If x>0: \\boxed{41}; if x<0: \\boxed{42}.",
    "My guess is \\boxed{41}. My second guess is \\boxed{42}.",
)
wrong("D", "The answer is D... or A.", checker="choice")
wrong("9", "9:4")

# letters, and backslashes that were escaped twice
wrong("2t", *boxed("2s", "2", "2h"))
right("2t", *boxed("2 t", r"2\,t", r"t \cdot 2"))
right(r"\frac{5}{8}", *boxed(r"\\frac{5}{8}", "0.625"))
right(
    r"\begin{pmatrix}1\\ \frac12\end{pmatrix}",
    *boxed(r"\begin{pmatrix}1\\\frac12\end{pmatrix}", r"\begin{pmatrix}1\\[2pt]0.5\end{pmatrix}"),
)

# powers of a letter beside the answer
right("5", "The coefficient of x^{23} is 5.", "So x^23 has the coefficient 5.")
wrong("23", "The coefficient of x^{23} is 5.")

# a result that is one of the question's numbers, as a small model wrote it
right(
    "6",
    "The least common multiple of 6 and 2 is 6.",
    question="Find the Least Common Multiple (LCM) of these numbers: 6, 2",
)
wrong("6", "The number of boxes is 6.", question="The number of boxes is 6. How many are left if 2 are sold?")

# arithmetic that is left to do, at any depth
wrong("42", *boxed("(17+25)/1", "(17+25)^1", "|17+25|", r"\sqrt{(17+25)^2}", r"\frac{34+50}{2}", r"\{17+25\}"))
wrong("(42, 7)", *boxed("(17+25, 3+4)"))
right("42", *boxed(r"\binom{42}{1}", "42^1"))
right(r"\{-3, 3\}", *boxed(r"\pm 3"))
wrong("x=5", *boxed("2x+3=13"))

# number words, percents, orders
wrong("5", *boxed("two and three"), "<answer>two three</answer>")
right("23", *boxed("twenty-three"), "<answer>twenty three</answer>")
wrong("0.45", *boxed(r"0.45\%"), question="20% of the balls are red. What is the probability?")
right("1, -3", *boxed("-3, 1"), question="Find all x such that the first term of the sequence is 3.")

# boxes that are a part of more
wrong(
    "42",
    r"10^{\boxed{42}}",
    r"2\boxed{42}",
    r"$\sqrt{\boxed{42}}$",
    r"$x \ne \boxed{42}$",
    r"\boxed{42} or 43",
    r"\boxed{42}, 43",
    r"\boxed{42}.5",
    r"\boxed{42} million",
)
right("42", r"at most \boxed{42} of them", "- \\boxed{42}", r"so it is \boxed{42}x^3", r"$x=\boxed{42}$, as wanted")

# times, dates, mixed numbers, quotes
right("3:30 PM", "3:30 PM", "3:30 pm")
right("May 14, 2023", "May 14, 2023")
right("H2O", "H2O")
right("5/2", "She walked 2 1/2 miles.", "**2½**")
right("27", "> 27", "9*3=<<9*3=27>>27", "*27*", "The answer is 27<end_of_turn>")
wrong("42", "So we exclude 42.", "All but 42.", "Now we divide by 42.")


FRAGMENTS = [
    "x^{23}", "\\boxed{", "}", "$", "\\[", "\\]", "\\(", "\\)", "5", " 3/4", "1,000", "\\frac{1}{2}", "\\frac", "{", "(", ")", "[", "]", ", ", ". ", "\n", " and ", " or ", "not ",
    "The answer is ", "#### ", "<answer>", "</answer>", "<think>", "</think>", "x = ", "\\sqrt{2}", "^", "_", "\\text{ cm}", "%", "°", "≈", "≤", "\\pm", "\\cup", "\\begin{pmatrix}",
    "\\end{pmatrix}", "&", "\\\\", "²³", "½", "two ", " m", "!", "|", "\\{", "\\}", "∞", "**", '{"answer": ', ":", "Wait, ", "千", "٣", "<<", ">>",
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=24))
@settings(max_examples=400, deadline=None)  # the test has a limit of its own
def test_any_text_of_such_fragments_has_a_verdict_soon(fragments: list[str]) -> None:
    text = "".join(fragments)
    began = time.perf_counter()
    for checker in ("math", "numeric", "choice"):
        assert accepts("C" if checker == "choice" else "5", text, checker=checker) in (True, False)
    assert accepts(text or "5", "\\boxed{5}") in (True, False)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(("gold", "text", "is_right", "options"), CASES)
def test_verdict(gold: str, text: str, is_right: bool, options: dict[str, Any]) -> None:
    assert accepts(gold, text, **options) == is_right
