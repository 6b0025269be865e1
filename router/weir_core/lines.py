"""How a log record looks as one line of JSON, for both shells. Pure: the shells do the logging."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

BUILT_IN = frozenset(
    {
        "args",
        "asctime",
        "created",
        "exc_info",
        "exc_text",
        "filename",
        "funcName",
        "levelname",
        "levelno",
        "lineno",
        "message",
        "module",
        "msecs",
        "msg",
        "name",
        "pathname",
        "process",
        "processName",
        "relativeCreated",
        "stack_info",
        "taskName",
        "thread",
        "threadName",
    }
)
"""Attributes of every record of `logging`."""
# uvicorn repeats its message in colours under this name.
UNWANTED = frozenset({"color_message"})


def given(attributes: Mapping[str, object]) -> dict[str, object]:
    """Return what was given as `extra`, of all attributes of a record."""
    known = BUILT_IN | UNWANTED
    return {name: value for name, value in attributes.items() if name not in known}


def json_line(attributes: Mapping[str, object], *, message: str, exception: str = "") -> str:
    """Return one JSON object: time, level, logger and message, then the fields given as `extra`.

    `attributes` are those of the record, with `created` in Unix seconds. A field that has the
    name of one of the first four is left out; what JSON cannot say is told as text.
    """
    at = datetime.fromtimestamp(float(str(attributes["created"])), UTC)
    told: dict[str, object] = {
        "time": at.isoformat(timespec="milliseconds"),
        "level": str(attributes["levelname"]).lower(),
        "logger": attributes["name"],
        "message": message,
    }
    told |= {name: value for name, value in given(attributes).items() if name not in told}
    if exception:
        told["exception"] = exception
    return json.dumps(told, default=str, ensure_ascii=False)
