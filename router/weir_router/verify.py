"""The checks of one answer: Finish, Schema, Pattern, Confidence. Cheapest first, all must pass.

The same code serves verifiers (which steer) and monitors (which measure). An unknown never
counts as a pass: no calibration, no logprobs or an unreadable schema means "not accepted".
"""

import functools
import math
from collections.abc import Callable, Sequence

import msgspec
import re2
from msgspec import UNSET

from weir_core.snapshot import Calibration, Check
from weir_router import schema
from weir_router.answer import Answer, Choice, FunctionCall
from weir_router.dialect import Body, Request

_FINISHED = frozenset({"stop", "tool_calls", "function_call"})
_REFUSAL = re2.compile(
    r"(?i)^\W*(i'?m sorry,? (but )?i (can'?t|cannot|am unable)"
    r"|i (can'?t|cannot|am unable to|won'?t) (help|assist|comply|provide|do that|answer)"
    r"|as an ai( language model)?,? i)"
)


def first_refusal(checks: Sequence[Check], answer: Answer, request: Request) -> str:
    """Return the name of the first check that does not accept the answer, "" if all do."""
    for check in checks:
        if not passes(check, answer, request):
            return check.name
    return ""


def first_refusal_of_prefix(checks: Sequence[Check], answer: Answer, request: Request) -> str:
    """Return the name of the first check that does not accept an answer's first tokens, or "".

    What a prefix cannot show is unknown, and an unknown never passes: what must match has to
    match within it, and a Schema is never met. A choice that has ended is judged as a whole.
    """
    for check in checks:
        judge, whole = _PREFIX_CHECKS.get(check.type), _CHECKS[check.type]
        for choice in answer.choices:
            if choice.finish:
                if not whole(check, choice, request.body):
                    return check.name
            elif judge is None or not judge(check, choice, request.body):
                return check.name
    return ""


def passes(check: Check, answer: Answer, request: Request) -> bool:
    """Return whether every choice of the answer passes the check."""
    judge = _CHECKS[check.type]
    for choice in answer.choices:  # noqa: SIM110 - a generator costs more than a check.
        if not judge(check, choice, request.body):
            return False
    return True


def _finish(check: Check, choice: Choice, body: Body) -> bool:
    """Not cut off, not empty, not a refusal."""
    return choice.finish in _FINISHED and _finish_of_prefix(check, choice, body)


def _finish_of_prefix(check: Check, choice: Choice, body: Body) -> bool:
    """Not empty, not a refusal; whether it will be cut off is not known yet."""
    if choice.refusal:
        return False
    if choice.tool_calls:
        return True
    return bool(choice.text.strip()) and not _finds(_REFUSAL, choice.text)


def _schema(check: Check, choice: Choice, body: Body) -> bool:
    """The answer has the shape that the request asked for; no shape asked for passes."""
    if choice.tool_calls:
        return all(_call_is_valid(call, body) for call in choice.tool_calls)
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return True
    value = _value(choice.text)
    if value is _NO_JSON:
        return False
    if wanted.type == "json_schema" and wanted.json_schema is not None:
        shape = wanted.json_schema.schema_
        return shape is UNSET or schema.is_valid(bytes(shape), value)
    return isinstance(value, dict)


_NO_JSON = object()


def _value(text: str) -> object:
    """Return the JSON value that a text spells, or `_NO_JSON`."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NO_JSON


def _call_is_valid(call: FunctionCall, body: Body) -> bool:
    for tool in body.tools or ():
        if tool.function is not None and tool.function.name == call.name:
            break
    else:
        return False
    arguments = _value(call.arguments or "{}")
    shape = tool.function.parameters
    if not isinstance(arguments, dict):
        return False
    return shape is UNSET or schema.is_valid(bytes(shape), arguments)


def schema_is_usable(request: Request) -> bool:
    """Whether the JSON schema that a request wants its answer in, if any, is one."""
    wanted = request.body.response_format
    if wanted is None or wanted.json_schema is None or wanted.json_schema.schema_ is UNSET:
        return True
    return schema.compiled(bytes(wanted.json_schema.schema_)) is not None


def _pattern(check: Check, choice: Choice, body: Body) -> bool:
    text = choice.text
    if choice.tool_calls:
        text = "\n".join([text, *(call.arguments or "" for call in choice.tool_calls)])
    if check.must_match and not _finds(_regex(check.must_match), text):
        return False
    return not (check.must_not_match and _finds(_regex(check.must_not_match), text))


def _finds(regex: re2._Regexp, text: str) -> bool:
    """Whether a pattern occurs; over bytes RE2 need not count characters."""
    return regex.search(text.encode("utf-8", "surrogatepass")) is not None


@functools.lru_cache(maxsize=1024)
def _regex(pattern: str) -> re2._Regexp:
    return re2.compile(pattern)


def _confidence(check: Check, choice: Choice, body: Body) -> bool:
    probability = confidence(check.calibration, choice)
    return probability >= check.min_probability


def confidence(calibration: Calibration | None, choice: Choice) -> float:
    """Return P(answer right) in [0, 1]; 0 without calibration or without what it needs."""
    if calibration is None or not choice.logprobs:
        return 0.0
    score = calibration.intercept
    for name, weight in calibration.features:
        value = _FEATURES[name](choice)
        if value is None:
            return 0.0
        score += weight * value
    return 1.0 / (1.0 + math.exp(-score)) if -700 < score < math.inf else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _low_decile(values: Sequence[float]) -> float:
    return sorted(values)[int(0.1 * (len(values) - 1))]


_FEATURES: dict[str, Callable[[Choice], float | None]] = {
    "sum": lambda choice: sum(choice.logprobs),
    "mean": lambda choice: _mean(choice.logprobs),
    "min": lambda choice: min(choice.logprobs),
    "q10": lambda choice: _low_decile(choice.logprobs),
    "tokens": lambda choice: float(len(choice.logprobs)),
    "margin_mean": lambda choice: _mean(choice.margins),
    "margin_min": lambda choice: min(choice.margins, default=None),
}

_CHECKS: dict[str, Callable[[Check, Choice, Body], bool]] = {
    "Finish": _finish,
    "Schema": _schema,
    "Pattern": _pattern,
    "Confidence": _confidence,
}
_PREFIX_CHECKS: dict[str, Callable[[Check, Choice, Body], bool]] = {
    "Finish": _finish_of_prefix,
    "Pattern": _pattern,
    "Confidence": _confidence,
}


def compile_check(check: Check) -> None:
    """Compile all that a check needs. Raises re2.error or KeyError for one that can never work."""
    for pattern in filter(None, (check.must_match, check.must_not_match)):
        _regex(pattern)
    for name, _ in check.calibration.features if check.calibration else ():
        _FEATURES[name]


def logprobs_wanted(checks: Sequence[Check]) -> int:
    """Return how many top logprobs the checks need: -1 none at all, 0 those of the answer."""
    wanted = -1
    for check in checks:
        if check.type == "Confidence" and check.calibration is not None:
            margins = any(name.startswith("margin") for name, _ in check.calibration.features)
            wanted = max(wanted, 2 if margins else 0)
    return wanted
