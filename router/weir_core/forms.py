"""The scalar forms that people write, and what each means: decimals, durations, percents, names.

Strict on purpose: money and probabilities are quoted decimals (floats do not survive a round
trip), durations follow GEP-2257, a percent is an integer or a string such as "0.5%". A reader
raises `FormError` with the form that was wanted; only `resources` and `crosscheck` see that.
"""

import re
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import re2
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

MAX_PATTERN = 1_024
"""Characters of a regular expression or a CEL expression."""

PICO = 10**12

DURATION_PATTERN = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
DECIMAL_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,12})?$"
PERCENT_PATTERN = r"^[0-9]{1,3}(\.[0-9]{1,2})?%$"
LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
SUBDOMAIN_PATTERN = r"^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$"
MODEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$"
FILE_PATTERN = r"^[A-Za-z0-9_][-._A-Za-z0-9]{0,252}$"
HEADER_PATTERN = r"^[a-z0-9][-a-z0-9]{0,63}$"
QUANTITY_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?$"
URI_PATTERN = r"^(hf|oci|s3|pvc)://[^\s]{1,500}$"
MAX_OBJECT_NAME = 52
"""Leaves room for `-<10 hex>` in the 63 characters of a Service's name."""

_UNIT_MS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION_PART = re.compile(r"([0-9]+)(ms|h|m|s)")

_QUIET = re2.Options()
_QUIET.log_errors = False


class FormError(ValueError):
    """A value has the wrong form; the message says which was wanted."""


class Form(BaseModel):
    """What people write: strict, frozen, camelCase outside, unknown fields refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=lambda name: camel(name),
        use_attribute_docstrings=True,
        validate_default=False,
        protected_namespaces=(),
    )


def camel(name: str) -> str:
    """Return a field's name as people write it: max_wait_ms is maxWait, in its own units."""
    head, *tail = name.removesuffix("_ms").removesuffix("_bp").split("_")
    return head + "".join(word.capitalize() for word in tail)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word most like `word`, "" when none is near."""
    by_lower = {one.lower(): one for one in sorted(known, reverse=True)}
    found = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else ""


def one_of(word: object, known: Iterable[str], *, what: str = "") -> str:
    """Say what was wanted where `word` is none of the known ones."""
    words = sorted(known)
    near = nearest(word, words) if isinstance(word, str) else ""
    hint = f"; did you mean '{near}'?" if near else ""
    if what and near:
        return f"one of the known {what}{hint}"
    return f"one of {', '.join(words) or 'none: there are none'}{hint}"


def as_duration_ms(value: object) -> int:
    """Return milliseconds of a GEP-2257 duration such as 1500ms, 6s or 1h30m."""
    if not isinstance(value, str) or not re.fullmatch(DURATION_PATTERN, value, re.ASCII):
        raise FormError("a duration such as 1500ms, 6s or 1h30m")
    return sum(int(count) * _UNIT_MS[unit] for count, unit in _DURATION_PART.findall(value))


def as_decimal(value: object) -> Decimal:
    """Return the value of a decimal string; a bare number is refused, since floats drift."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise FormError(f'a decimal in quotes: "{_plain(value)}"')
    if not isinstance(value, str) or not re.fullmatch(DECIMAL_PATTERN, value, re.ASCII):
        raise FormError('a decimal in quotes, such as "0.05"')
    return Decimal(value)


def as_basis_points(value: object) -> int:
    """Return basis points of a percent, an integer (5) or a string ("0.5%"), 0 to 100."""
    wanted = 'a percent from 0 to 100: an integer such as 5, or a string such as "0.5%"'
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise FormError(wanted)
    if isinstance(value, str) and not re.fullmatch(PERCENT_PATTERN, value, re.ASCII):
        raise FormError(wanted)
    percent = Decimal(value.rstrip("%") if isinstance(value, str) else value)
    if not 0 <= percent <= 100:
        raise FormError(wanted)
    return int(percent * 100)


def as_tuple(value: object) -> object:
    """Return a list as a tuple, anything else as it is (and so refused)."""
    return tuple(value) if isinstance(value, list) else value


def as_regex(value: str) -> str:
    """Return an RE2 pattern that compiles."""
    try:
        re2.compile(value, _QUIET)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise FormError(f"an RE2 pattern that compiles ({text})") from None
    return value


def as_base_url(value: object) -> str:
    """Return scheme, host, port and path prefix in one spelling.

    A default port, trailing slashes and a trailing /v1 are taken off: API paths are appended.
    """
    wanted = "a URL such as https://api.example.com or http://host:8000/prefix"
    if not isinstance(value, str) or not value.isascii() or re.search(r"[\s\\]", value):
        raise FormError(wanted)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise FormError(wanted) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FormError(wanted)
    if parts.query or parts.fragment or "@" in parts.netloc or value[-1] in "?#":
        raise FormError(f"{wanted}, without user, query or fragment")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    place = host if port in (None, default) else f"{host}:{port}"
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{place}{path}"


def pico(amount: Decimal, *, per: int = 1) -> int:
    """Return pico units of one of `per`, rounded half up: "0.05" per million is 50,000."""
    return int((amount * PICO / per).to_integral_value(ROUND_HALF_UP))


def _plain(value: float) -> str:
    text = format(Decimal(repr(value)), "f") if abs(value) < 1e12 else "0.05"
    return text if re.fullmatch(DECIMAL_PATTERN, text, re.ASCII) else "0.05"


def _matching(pattern: str, wanted: str) -> Any:
    """Return a validator of strings: `pattern` matched whole, `wanted` said otherwise."""
    compiled = re.compile(pattern.removesuffix("$"), re.ASCII)

    def check(value: object) -> object:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise FormError(wanted)
        return value

    return BeforeValidator(check)


Item = TypeVar("Item")
Listed = Annotated[tuple[Item, ...], BeforeValidator(as_tuple)]
"""A list in the file, a tuple here."""

Duration = Annotated[
    int,
    BeforeValidator(as_duration_ms),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
SomeTime = Annotated[Duration, Field(gt=0)]
"""A duration above nothing."""
Number = Annotated[
    Decimal,
    BeforeValidator(as_decimal),
    WithJsonSchema({"type": "string", "pattern": DECIMAL_PATTERN}),
]
Percent = Annotated[
    int,
    BeforeValidator(as_basis_points),
    WithJsonSchema(
        {"x-kubernetes-int-or-string": True, "minimum": 0, "maximum": 100}
        | {"pattern": PERCENT_PATTERN}
    ),
]
Regex = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN), AfterValidator(as_regex)]
BaseUrl = Annotated[str, BeforeValidator(as_base_url), WithJsonSchema({"type": "string"})]

_NAME = "lower-case letters, digits and dashes"
Label = Annotated[
    str,
    _matching(LABEL_PATTERN, f"a name of at most 63 {_NAME}"),
    WithJsonSchema({"type": "string", "pattern": LABEL_PATTERN, "maxLength": 63}),
]
ObjectName = Annotated[
    str,
    _matching(
        LABEL_PATTERN.replace("61", str(MAX_OBJECT_NAME - 2)),
        f"a name of at most {MAX_OBJECT_NAME} {_NAME}",
    ),
    WithJsonSchema({"type": "string", "pattern": LABEL_PATTERN, "maxLength": MAX_OBJECT_NAME}),
]
Subdomain = Annotated[
    str,
    _matching(SUBDOMAIN_PATTERN, f"a name of at most 253 {_NAME} (and dots)"),
    WithJsonSchema({"type": "string", "pattern": SUBDOMAIN_PATTERN, "maxLength": 253}),
]
ModelName = Annotated[
    str,
    _matching(MODEL_PATTERN, "a model's name: at most 128 of letters, digits and . _ : / @ -"),
    WithJsonSchema({"type": "string", "pattern": MODEL_PATTERN, "maxLength": 128}),
]
FileName = Annotated[
    str,
    _matching(FILE_PATTERN, "a file's name: letters, digits, dots, dashes, underscores"),
    WithJsonSchema({"type": "string", "pattern": FILE_PATTERN, "maxLength": 253}),
]
HeaderName = Annotated[
    str,
    _matching(HEADER_PATTERN, "a header's name in lower case, such as x-session-id"),
    WithJsonSchema({"type": "string", "pattern": HEADER_PATTERN, "maxLength": 64}),
]
Quantity = Annotated[
    str,
    _matching(QUANTITY_PATTERN, "a quantity such as 512Mi or 2Gi"),
    WithJsonSchema({"type": "string", "pattern": QUANTITY_PATTERN}),
]
ModelUri = Annotated[
    str,
    _matching(URI_PATTERN, "a model's place: hf://, oci://, s3:// or pvc://"),
    WithJsonSchema({"type": "string", "pattern": URI_PATTERN, "maxLength": 512}),
]
