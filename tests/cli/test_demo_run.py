"""One whole run of `weir demo`, on few questions: real processes, real verdicts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

RUN_S = 180
"""Far more than it takes: the machine may be busy."""


class Ran(NamedTuple):
    out: str
    told: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    file = folder / "told.json"
    command = [sys.executable, "-m", "weir_cli", "demo", "--questions", "200", "--json", str(file)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Ran(done.stdout, json.loads(file.read_text("utf8")), folder)


def test_every_change_ends_as_it_should(ran):
    verdicts = [(one["verdict"], one["suspect"]) for one in ran.told["rollouts"]]
    assert verdicts == [
        ("Promoted", ""),
        ("RolledBack", "quality"),
        ("RolledBack", "escalations"),
        ("RolledBack", "escalations"),
        ("RolledBack", "quality"),
    ]


def test_evidence_is_past_its_threshold(ran):
    assert all(one["eValue"] >= one["threshold"] for one in ran.told["rollouts"])


def test_bad_answers_are_among_the_canarys(ran):
    for one in ran.told["rollouts"]:
        # A canary that is caught and escalated every time serves nothing wrong.
        least = 1 if one["suspect"] == "quality" else 0
        assert least <= one["badAnswersServed"] < one["canaryRequests"] < one["requests"]


def test_audits_are_a_quarter_and_cost_apart(ran):
    rollouts = ran.told["rollouts"]
    # A busy machine sheds audits first, and a quick verdict leaves some under way.
    assert all(0 < one["audits"] < 0.35 * one["requests"] for one in rollouts)
    assert all(one["auditCost"] > 0 for one in rollouts)
    longest = max(rollouts, key=lambda one: one["requests"])
    assert longest["audits"] > 0.03 * longest["requests"]


def test_cascade_costs_less_than_always_large(ran):
    told = ran.told
    assert told["questions"] == 200
    assert told["small"]["cost"] < told["cascade"]["cost"] < 0.6 * told["large"]["cost"]
    assert 0 < told["cascade"]["escalated"] < 1


def test_plain_output_has_no_colours_and_fits_100_columns(ran):
    assert "\x1b" not in ran.out
    assert "All as it should be" in ran.out
    sentences = [line for line in ran.out.splitlines() if "step " not in line]
    assert max(map(len, sentences)) <= 100


def test_nothing_is_left_behind(ran):
    assert [file.name for file in ran.folder.iterdir()] == ["told.json"]


@pytest.mark.parametrize("words", [("--questions", "0"), ("--questions", "x"), ("--seed", "y")])
def test_wrong_options_are_told(weir_command, words):
    assert weir_command("demo", *words).code == 2


def test_json_into_no_folder_is_told_before_anything_runs(weir_command, tmp_path):
    ran = weir_command("demo", "--json", str(tmp_path / "none" / "told.json"))
    assert ran.code == 2
    assert ran.err.startswith("weir: --json: saw ")
