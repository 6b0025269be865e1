"""Whether a rule's CEL expression can be asked of every request: known signals, a true or false.

CEL is only typed when it runs, and short circuits hide what is wrong on one side. So a candidate
is run on samples that take the texts and numbers of the expression itself as signals.
"""

import re
from collections.abc import Iterator
from typing import Any

import cel
import msgspec

from weir_core.forms import one_of
from weir_core.routing import SIGNALS

FUNCTIONS = frozenset(
    {"contains", "double", "dyn", "endsWith", "int", "matches", "size", "startsWith"}
    | {"string", "uint"}
)
"""What may be called beside operators and macros. No clock: a replay must decide alike."""

MAX_SAMPLES = 64
MAX_NESTING = 16
"""Brackets within brackets: the engine's parser recurses."""
MAX_MACROS = 2
"""Loops over written lists; nested ones multiply, and a rule runs for every request."""

_MACRO = re.compile(
    r"\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,"
)
_MACRO_WORD = re.compile(r"\b(?:all|exists|exists_one|existsOne|map|filter)\b(?!['\"])")
_TEXT = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")
_NUMBER = re.compile(r"(?<![\w.])\d{1,9}(?:\.\d{1,9})?")


class Unfit(msgspec.Struct, frozen=True):
    """What was seen in an expression, and what was wanted."""

    seen: str
    wanted: str


def expression_trouble(text: str) -> Unfit | None:
    """Return why `text` cannot be a rule, None when it can."""
    if _nesting(text) > MAX_NESTING:
        return Unfit(_short(text), f"at most {MAX_NESTING} brackets within each other")
    if len(_MACRO_WORD.findall(text)) > MAX_MACROS:
        return Unfit(_short(text), f"at most {MAX_MACROS} loops such as exists")
    try:
        program = cel.compile(text)
    except ValueError as error:
        return Unfit(_short(text), f"a CEL expression that parses ({_reason(error)})")
    bound = set(_MACRO.findall(text))
    for name in sorted(program.variables()):
        if name not in SIGNALS and name not in bound:
            return Unfit(f"'{name}'", f"a signal: {one_of(name, SIGNALS)}")
    for name in sorted(program.functions()):
        if name[0].isalpha() and name not in FUNCTIONS:
            return Unfit(f"'{name}()'", f"a function: {one_of(name, FUNCTIONS)}")
    return _unfit_when_run(program, text)


def _nesting(text: str) -> int:
    """Return at least the depth of brackets; those inside strings count too."""
    depth = deepest = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
        depth = max(depth, 0)
    return deepest


def _unfit_when_run(program: Any, text: str) -> Unfit | None:
    wanted = "an expression that is true or false"
    answers = []
    for signals in _samples(text):
        try:
            answers.append(program.execute(signals))
        except TypeError as error:
            return Unfit(_short(text), f"{wanted} for every request ({_reason(error)})")
        except (RuntimeError, ValueError, ArithmeticError):
            # Such as a division by zero: the sample's fault, and no match when it happens.
            continue
    others = [answer for answer in answers if not isinstance(answer, bool)]
    if others:
        return Unfit(f"an expression that gives {others[0]!r}", wanted)
    if not answers:
        return Unfit(_short(text), f"{wanted}, without an error on every sample")
    return None


def _samples(text: str) -> Iterator[dict[str, Any]]:
    """Give signals that reach every side of the usual expression; at most MAX_SAMPLES."""
    texts = ["unknown", *(a or b for a, b in _TEXT.findall(text))]
    numbers = [0.0, 1.0]
    for found in _NUMBER.findall(text):
        numbers += [float(found) - 1, float(found), float(found) + 1]
    left = MAX_SAMPLES
    for number in dict.fromkeys(numbers):
        for word in dict.fromkeys(texts):
            for flag in (False, True):
                if left == 0:
                    return
                left -= 1
                yield {name: _like(kind, word, number, flag) for name, kind in SIGNALS.items()}


def _like(kind: object, word: str, number: float, flag: bool) -> object:
    match kind:
        case bool():
            return flag
        case int():
            return int(number)
        case float():
            return number
    return word


def _reason(error: Exception) -> str:
    """Return the part of the engine's message that helps: its first sentence, without our text."""
    text = str(error).partition("ERROR: <input>:")[2] or str(error) or "no reason given"
    return _short(text.splitlines()[0].partition(". ")[0], bound=120)


def _short(text: str, *, bound: int = 60) -> str:
    return text if len(text) <= bound else f"{text[: bound - 3]}..."
