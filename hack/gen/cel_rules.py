"""What every rule for the API server is made of: its text, its message, what both often say.

The API server weighs a rule before it takes it, by the largest sizes that the schema allows; where
it knows none it takes a whole request. So rules here go by places, not by what `filter` returns.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from annotated_types import MaxLen
from pydantic import BaseModel


def quoted(text: str) -> str:
    """Return a text as a CEL literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


class Rule(msgspec.Struct, frozen=True):
    """One rule: what must hold, and what is said when it does not.

    `field` is the path below the place of the rule that the error names, such as ".timeout".
    `expression` is CEL that gives a message with what was seen.
    """

    rule: str
    message: str
    field: str = ""
    reason: str = ""
    expression: str = ""

    def written(self) -> dict[str, Any]:
        """Return an entry of x-kubernetes-validations."""
        entry = {
            "rule": self.rule,
            "message": self.message,
            "messageExpression": self.expression,
            "fieldPath": self.field,
            "reason": self.reason,
        }
        return {name: value for name, value in entry.items() if value}


FORBIDDEN, REQUIRED = "FieldValueForbidden", "FieldValueRequired"


def belongs(field: str, chooser: str, *values: str) -> Rule:
    """Say that a field of a flat union belongs to some of its variants."""
    variants, having = ", ".join(map(quoted, values)), f"{chooser} {' or '.join(values)}"
    return Rule(
        f"self.{chooser} in [{variants}] || !has(self.{field})",
        f"belongs to {having}",
        field=f".{field}",
        reason=FORBIDDEN,
        expression=f"'{field} belongs to {having}, not to ' + self.{chooser}",
    )


def needs(field: str, chooser: str, value: str) -> Rule:
    return Rule(
        f"self.{chooser} != {quoted(value)} || has(self.{field})",
        f"{chooser} {value} needs {field}",
        field=f".{field}",
        reason=REQUIRED,
    )


Condition = Callable[[str], str]
"""CEL that says whether the item that the argument names is wrong."""


def most_items(model: type[BaseModel], field: str) -> int:
    """Return how many items a list of a model may have."""
    found = next(one for name, one in model.model_fields.items() if (one.alias or name) == field)
    return int(next(one.max_length for one in found.metadata if isinstance(one, MaxLen)))


def places(most: int) -> str:
    return f"[{', '.join(map(str, range(most)))}]"


def first_wrong(items: str, most: int, wrong: Condition) -> str:
    """Return CEL for the first wrong item.

    By its place, since the API server does not know the sizes of what `filter` lets through.
    """
    item = f"{items}[i]"
    return f"{items}[{places(most)}.filter(i, i < {items}.size() && {wrong(item)})[0]]"


def unique_names(model: type[BaseModel], field: str) -> Rule:
    most = most_items(model, field)

    def repeated(item: str) -> str:
        return f"{places(most)}.exists(j, j < i && self[j].name == {item}.name)"

    return Rule(
        "self.all(a, self.exists_one(b, b.name == a.name))",
        "wanted each name once in this list",
        expression=f"'saw \\'' + {first_wrong('self', most, repeated)}.name"
        " + '\\' again, wanted each name once in this list'",
    )


ZERO = [
    f"{'0' * whole}{'.' * (part > 0)}{'0' * part}%" for whole in (1, 2, 3) for part in (0, 1, 2)
]
ALL = ["100%", "100.0%", "100.00%"]


def is_percent(value: str, number: int, texts: Iterable[str]) -> str:
    """Return CEL for whether a percent, a number or a text, is this number.

    Without int() the API server takes the comparison to be one of texts as long as a request.
    """
    listed = ", ".join(map(quoted, texts))
    return f"(type({value}) == int ? int({value}) == {number} : {value} in [{listed}])"
