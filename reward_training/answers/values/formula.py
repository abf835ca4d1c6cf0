r"""Parses one expression of LaTeX or typed mathematics, such as 3xy + 5, \frac83, 2\sin^2 x, or 6 - 5i.

Relations, lists, brackets and matrices are put together from expressions by `reading`. White space never matters. What
is not understood as a whole is refused: there is no partial reading.
"""

from __future__ import annotations

from reward_training.answers.number import as_fraction
from reward_training.answers.values.tokens import FUNCTIONS, GREEK, OPERATORS, OVER, NotAFormulaError, tokens
from reward_training.answers.values.tree import Node, negative, number, symbol

MAX_DEPTH = 60
"""brackets and commands within each other"""
UNKNOWN_FUNCTIONS = {"f", "g", "h", "F", "G", "P", "Q"}
"""letters that are functions where a bracket follows them"""
CLOSING = {"(": ")", "[": "]", "{": "}"}


def parsed(text: str) -> Node:
    r"""The tree of an expression.

    >>> parsed(r"\frac12").operation, parsed("3 x y") == parsed("3xy")
    ('/', True)

    Raises:
        NotAFormulaError: the text is no expression as a whole, or too long.
    """
    parser = _Parser(tokens(text))
    tree = parser.sum()
    if parser.token:
        raise NotAFormulaError(f"{text!r}: nothing may stand at {parser.token!r}")
    return tree


class _Parser:
    """Recursive descent over tokens; `token` is the next one, empty at the end."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._index = 0
        self._depth = 0
        self._is_in_bars = False

    @property
    def token(self) -> str:
        return self._tokens[self._index] if self._index < len(self._tokens) else ""

    def _peek(self, ahead: int = 1) -> str:
        index = self._index + ahead
        return self._tokens[index] if index < len(self._tokens) else ""

    def _take(self) -> str:
        token = self.token
        if not token:
            raise NotAFormulaError("the formula ends too early")
        self._index += 1
        return token

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise NotAFormulaError(f"{token!r} is missing")

    def sum(self) -> Node:
        left = self._signed()
        while (operator := self._operator()) in ("+", "-", "pm", "mp"):
            self._take()
            left = Node(operator, (left, self._product()))
        return left

    def _operator(self) -> str:
        return OPERATORS.get(self.token[1:], "") if self.token.startswith("\\") else {"±": "pm", "∓": "mp"}.get(self.token, self.token)  # fmt: skip

    def _signed(self) -> Node:
        """A product that may have signs before it."""
        operator = self._operator()
        if operator not in ("+", "-", "pm", "mp"):
            return self._product()
        self._take()
        inner = self._signed()
        return inner if operator == "+" else Node(operator, (number(0), inner))

    def _product(self) -> Node:
        left = self._power()
        while True:
            operator = self._operator()
            if operator in ("*", "/", "÷", "×"):
                self._take()
                right = self._signed_power()
                left = Node("*" if operator in "*×" else "/", (left, right))
            elif self._begins_factor():
                if self.token[0].isdigit() or self.token[0] == ".":
                    raise NotAFormulaError(f"{self.token!r} stands beside another factor")
                left = self._times_or_mixed(left)
            else:
                return left

    def _times_or_mixed(self, left: Node) -> Node:
        r"""The product with the factor that follows; the sum in mixed numbers, such as 2\frac{1}{2}."""
        is_fraction = self.token == "\\frac"
        right = self._power()
        is_mixed = (
            is_fraction
            and left.value is not None
            and left.value.denominator == 1
            and right.operation == "/"
            and all(part.operation == "number" for part in right.arguments)
        )
        return Node("+" if is_mixed else "*", (left, right))

    def _begins_factor(self) -> bool:
        token = self.token
        if token.startswith("\\"):
            name = token[1:]
            return name in FUNCTIONS or name in GREEK or name in OVER or name in ("frac", "binom", "lfloor", "lceil")
        if token == "|":
            return not self._is_in_bars
        return bool(token) and (token.isalnum() or token in ("(", "[", "{", "√", "°") or token[0] == ".")

    def _signed_power(self) -> Node:
        if self.token in ("-", "+"):
            is_negative = self._take() == "-"
            inner = self._signed_power()
            return negative(inner) if is_negative else inner
        return self._power()

    def _power(self) -> Node:
        base = self._postfixed(self._atom())
        if self.token != "^":
            return base
        self._take()
        if base.operation == "symbol" and "_" in self._tokens[self._index + 1 : self._index + 2]:
            exponent = self._exponent()  # v^2_0 is the square of v_0
            return Node("^", (symbol(self._with_subscript(base.name)), exponent))
        if self.token == "{" and self._peek() == "\\circ" and self._peek(2) == "}":
            self._index += 3
            return self._degrees(base)
        if self.token == "\\circ":
            self._take()
            return self._degrees(base)
        return self._postfixed(Node("^", (base, self._exponent())))

    def _degrees(self, base: Node) -> Node:
        return Node("*", (base, symbol("°")))

    def _exponent(self) -> Node:
        """A group, or one signed token: x^2y is x^2 times y, and 2^10 is 1024."""
        if self.token in ("-", "+"):
            sign = self._take()
            inner = self._exponent()
            return negative(inner) if sign == "-" else inner
        base = self._atom()
        if self.token == "^":
            self._take()
            return Node("^", (base, self._exponent()))
        return base

    def _postfixed(self, node: Node) -> Node:
        while self.token in ("!", "°", "'"):
            mark = self._take()
            if mark == "!":
                node = Node("factorial", (node,))
            elif mark == "°":
                node = self._degrees(node)
            elif node.operation == "symbol":
                node = symbol(node.name + "'")
            else:
                raise NotAFormulaError("a prime needs a name before it")
        return node

    def _group(self) -> Node:
        r"""The argument of a command: {...}, or one token, of which a number gives one digit: \frac83."""
        if self.token == "{":
            return self._atom()
        if self.token.isdigit() and len(self.token) > 1:
            first, self._tokens[self._index] = self.token[0], self.token[1:]
            return number(int(first))
        return self._atom()

    def _atom(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotAFormulaError("it is nested too deep")
        atom = self._atom_of(self._take())
        self._depth -= 1
        return atom

    def _atom_of(self, token: str) -> Node:
        if token[0].isdigit() or token[0] == ".":
            return self._number(token)
        if token in CLOSING:
            inner = self.sum()
            self._expect(CLOSING[token])
            return inner
        if token == "|":
            return self._between_bars()
        if token == "√":
            return Node("sqrt", (self._group(),))
        if token == "°":
            return symbol("°")
        if token.startswith("\\"):
            return self._command(token[1:])
        if token.isalpha():
            return self._symbol(token)
        raise NotAFormulaError(f"{token!r} begins no expression")

    def _between_bars(self) -> Node:
        self._is_in_bars = True
        inner = self.sum()
        self._is_in_bars = False
        self._expect("|")
        return Node("abs", (inner,))

    def _number(self, token: str) -> Node:
        value = as_fraction(token)
        if value is None:
            raise NotAFormulaError(f"{token!r} has no value")
        return number(value)

    def _symbol(self, name: str) -> Node:
        name = self._with_subscript(name)
        is_of_a_number = name.isupper() and self._peek().isdigit() and self._peek(2) == ")"
        if self.token == "(" and (name in UNKNOWN_FUNCTIONS or is_of_a_number):
            return Node(f"{name}()", (self._atom(),))
        return symbol(name)

    def _with_subscript(self, name: str) -> str:
        """The name with its subscript, for which the font does not matter: k_B is k_{\\mathrm{B}}."""
        if self.token != "_":
            return name
        self._take()
        depth, parts = 0, list[str]()
        while True:
            token = self._take()
            depth += {"{": 1, "}": -1}.get(token, 0)
            parts += [] if token in ("{", "}") or token[1:] in OVER else [token.lstrip("\\")]
            if depth <= 0 and parts:
                return f"{name}_{''.join(parts)}"
            if depth < 0:
                raise NotAFormulaError("a subscript is empty")

    def _command(self, name: str) -> Node:
        if name in ("frac", "binom"):
            top, bottom = self._group(), self._group()
            return Node("/" if name == "frac" else "binom", (top, bottom))
        if name == "sqrt":
            return self._root()
        if name in ("lfloor", "lceil"):
            inner = self.sum()
            self._expect("\\r" + name[1:])
            return Node(name[1:], (inner,))
        if name in FUNCTIONS:
            return self._function(name)
        if name in OVER:
            return self._decorated(name)
        if name in GREEK:
            return self._symbol(name)
        raise NotAFormulaError(f"\\{name} is not known")

    def _root(self) -> Node:
        if self.token != "[":
            return Node("sqrt", (self._group(),))
        self._take()
        degree = self.sum()
        self._expect("]")
        return Node("root", (self._group(), degree))

    def _decorated(self, name: str) -> Node:
        r"""The symbol under an accent, or in another font: \overline{AB}, \mathbf{v}, \text{ln}."""
        if self.token != "{":
            return self._symbol(self._take().lstrip("\\"))
        self._take()
        parts = []
        while self.token != "}":
            parts.append(self._take())
        self._take()
        inner = "".join(parts).lstrip("\\")
        if inner in FUNCTIONS:
            return self._function(inner)
        if len(parts) == 1 and name not in ("overline", "bar", "hat"):
            return self._symbol(inner) if inner.isalpha() else self._number(inner)
        return self._symbol(f"{name}({inner})")

    def _function(self, name: str) -> Node:
        r"""A function with its exponent and base: \sin^2 x, \log_2 8, \sin^{-1} x."""
        base, exponent = None, None
        while self.token in ("_", "^"):
            if self._take() == "_":
                base = self._group()
            else:
                exponent = self._group()
        argument = self._arguments() if self.token in ("(", "{", "[") else (self._bare_argument(),)
        if name in ("gcd", "lcm", "min", "max"):
            tree = Node(name, argument)
        elif len(argument) != 1:
            raise NotAFormulaError(f"{name} takes one argument")
        elif name == "log" and base is not None:
            tree = Node("/", (Node("ln", argument), Node("ln", (base,))))
        else:
            tree = Node(name, argument)
        is_inverse = exponent == negative(number(1)) and name in ("sin", "cos", "tan")
        if is_inverse:
            return Node("arc" + name, argument)
        return tree if exponent is None else Node("^", (tree, exponent))

    def _arguments(self) -> tuple[Node, ...]:
        closing = CLOSING[self._take()]
        arguments = [self.sum()]
        while self.token == ",":
            self._take()
            arguments.append(self.sum())
        self._expect(closing)
        return tuple(arguments)

    def _bare_argument(self) -> Node:
        r"""What follows a function without brackets: the factors up to a sign or another function, as in \sin 2x."""
        argument = self._signed_power()
        while self._begins_factor() and self.token[1:] not in FUNCTIONS and self.token not in ("(", "["):
            argument = Node("*", (argument, self._power()))
        return argument
