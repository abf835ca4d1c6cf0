"""Splits a formula into its smallest parts, and knows the names in it: functions, Greek letters, operators."""

from __future__ import annotations

import re

from reward_training.answers.number import unsigned

MAX_TOKENS = 300


class NotAFormulaError(ValueError):
    """The text is not one expression as a whole."""


FUNCTIONS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "log", "exp", "sqrt", "abs",
    "floor", "ceil", "det", "gcd", "lcm", "min", "max", "Re", "Im", "arg",
}  # fmt: skip
ALIASES = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "cosec": "csc", "tg": "tan", "ctg": "cot", "arctg": "arctan",
    "lg": "log", "operatorname": "", "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom",
    "varphi": "phi", "varepsilon": "epsilon", "vartheta": "theta", "infinity": "infty", "inf": "infty", "oo": "infty",
}  # fmt: skip
GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi", "pi", "rho", "sigma",
    "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega",
    "infty", "ell", "hbar", "aleph",
}  # fmt: skip
"""letters that have names"""
GREEK_LETTERS = {
    "π": "pi", "∞": "infty", "θ": "theta", "α": "alpha", "β": "beta", "γ": "gamma", "λ": "lambda", "μ": "mu", "φ": "phi", "ω": "omega",
    "σ": "sigma", "ρ": "rho", "δ": "delta", "ε": "epsilon",
}  # fmt: skip
OVER = {
    "overline", "bar", "vec", "hat", "widehat", "tilde", "widetilde", "overrightarrow", "underline",
    "mathbf", "mathrm", "mathit", "mathcal", "mathbb", "boldsymbol", "bm", "text", "mbox",
}  # fmt: skip
"""accents and fonts of a symbol"""
OPERATORS = {"times": "*", "cdot": "*", "ast": "*", "div": "/", "pm": "pm", "mp": "mp", "plus": "+", "minus": "-"}
TOKEN = re.compile(
    rf"\s*(?:(?P<number>{unsigned(open_point=True)})|\\(?P<command>[A-Za-z]+|[{{}}])|(?P<letters>[A-Za-z]+)"
    r"|(?P<sign>\*\*|.))",
    re.DOTALL,
)
WORDS = {
    "the", "is", "are", "was", "of", "in", "it", "so", "we", "to", "an", "as", "at", "by", "if", "or", "on", "no", "be", "for", "has", "had", "and", "not",
    "but", "you", "his", "her", "its", "our", "out", "any", "can", "may", "get", "got", "all", "she", "he",
}  # fmt: skip
"""short words that are no products of variables"""
MAX_RUN = 3
"""letters side by side that are a product of variables; longer runs are words"""


def tokens(text: str) -> list[str]:
    r"""Numbers, \commands, single letters, names of functions, and signs."""
    found: list[str] = []
    for match in TOKEN.finditer(text.rstrip()):
        kind, token = match.lastgroup, match.group(match.lastgroup or 0)
        if kind == "command":
            name = ALIASES.get(token, token)
            found += ["\\" + name] if name else []
        elif kind == "letters":
            found += _of_letters(token)
        elif token in GREEK_LETTERS:
            found.append("\\" + GREEK_LETTERS[token])
        else:
            found.append("^" if token == "**" else token)
    if not 0 < len(found) <= MAX_TOKENS:
        raise NotAFormulaError(f"{len(found)} tokens")
    return found


def _of_letters(run: str) -> list[str]:
    """Letters side by side: the name of a function or of a Greek letter, or single variables."""
    name = ALIASES.get(run, run)
    if name in FUNCTIONS or name in GREEK:
        return ["\\" + name]
    for function in sorted(FUNCTIONS, key=len, reverse=True):
        if run.endswith(function) and len(run) - len(function) in (1, 2) and len(function) > 2:
            return [*run[: -len(function)], "\\" + function]  # xsin(x)
        if run.startswith(function) and len(run) - len(function) == 1 and len(function) > 2 and function != "det":
            return ["\\" + function, run[-1]]  # sinx
    if run.endswith("pi") and len(run) <= MAX_RUN:
        return [*run[:-2], "\\pi"]
    if len(run) > MAX_RUN or run.lower() in WORDS:
        raise NotAFormulaError(f"{run!r} is a word")
    return list(run)
