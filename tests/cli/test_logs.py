"""A record is a constant message and its fields."""

import json
import logging

import pytest

from weir_router.logs import JsonFormatter, TextFormatter


def record(message="snapshot applied", **extra):
    made = logging.LogRecord("weir", logging.INFO, __file__, 1, message, (), None)
    vars(made).update(extra)
    return made


def test_text_shows_fields_behind_the_message():
    line = TextFormatter().format(record(version=8, route="llm/a", why="two words"))
    assert line.endswith(' info     snapshot applied version=8 route=llm/a why="two words"')


@pytest.mark.parametrize("value", ["", "a b", 'a"b', "a\nb", "a=b"])
def test_text_value_stays_one_word(value):
    line = TextFormatter().format(record("m", field=value))
    assert json.loads(line.partition("field=")[2]) == value
    assert "\n" not in line


def test_json_has_fields_beside_the_message():
    told = json.loads(JsonFormatter().format(record(version=8)))
    assert told["message"] == "snapshot applied"
    assert told["level"] == "info"
    assert told["version"] == 8
    assert told["time"].endswith("+00:00")


def test_json_field_hides_nothing_of_the_record():
    assert json.loads(JsonFormatter().format(record(level="mine", time=1)))["level"] == "info"


def test_json_takes_any_value():
    assert json.loads(JsonFormatter().format(record(path=object)))["path"]


def test_traceback_stays_in_one_json_line():
    try:
        raise ValueError("why")
    except ValueError as error:
        made = record()
        made.exc_info = (ValueError, error, error.__traceback__)
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert "ValueError: why" in json.loads(line)["exception"]
