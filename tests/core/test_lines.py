"""One line of JSON for one record of a log."""

import json
import logging
import sys

from weir_core.lines import BUILT_IN, json_line


def record(**extra):
    made = logging.makeLogRecord({"msg": "snapshot %s", "args": ("applied",), **extra})
    made.created = 1_700_000_000.25
    return made


def line(made, exception=""):
    return json.loads(json_line(vars(made), message=made.getMessage(), exception=exception))


def test_fields_stand_beside_time_level_and_message():
    assert line(record(version=8, name="weir", levelname="INFO", names=["a"])) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "info",
        "logger": "weir",
        "message": "snapshot applied",
        "version": 8,
        "names": ["a"],
    }


def test_a_field_cannot_take_the_place_of_what_every_line_has():
    told = line(record(time="never", level="none", version=object))
    assert told["time"].startswith("2023")
    assert told["level"] != "none"
    assert "object" in told["version"]


def test_an_exception_is_told():
    assert line(record(), "Traceback: no")["exception"] == "Traceback: no"


def test_no_attribute_of_a_record_is_taken_for_a_field():
    known = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    assert known <= BUILT_IN, sys.version
