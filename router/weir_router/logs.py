"""How log records look: a constant message and its fields, as text or as JSON lines."""

import json
import logging
import sys
from datetime import datetime
from typing import Literal

from weir_core.lines import given, json_line

Format = Literal["text", "json"]
FORMATS: tuple[Format, ...] = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")


class TextFormatter(logging.Formatter):
    """`12:30:01 info     snapshot applied version=8`, for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and the traceback if there is one."""
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = record.levelname.lower()
        told = "".join(f" {name}={_shown(value)}" for name, value in given(vars(record)).items())
        line = f"{at} {level:<8} {record.getMessage()}{told}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines; fields stand beside time, level and message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        exception = self.formatException(record.exc_info) if record.exc_info else ""
        return json_line(vars(record), message=record.getMessage(), exception=exception)


def _shown(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and text and not set(text) & set(' "=')
    return text if plain else json.dumps(text, ensure_ascii=False)


def set_up_logging(*, shape: Format, level: str) -> None:
    """Send every record of `level` or above to standard error, uvicorn's own from warning on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if shape == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    if level == "info":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
