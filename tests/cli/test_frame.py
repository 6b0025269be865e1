"""What people see, as text; read the golden files to judge the look."""

import copy
import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from weir_cli.frame import bar, render

GOLDEN = Path(__file__).parent / "golden"
NOW_S = 1_234.0


def drawn(told, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(told, width, now_s=NOW_S))
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


@pytest.mark.parametrize("width", [80, 120])
def test_frame_is_the_golden_one(scene, width):
    """Set WEIR_UPDATE_GOLDEN=1 to write the file anew, then read it line by line."""
    name, told = scene
    golden = GOLDEN / f"watch-{name}-{width}.txt"
    if os.environ.get("WEIR_UPDATE_GOLDEN"):
        golden.write_text(drawn(told, width))
    assert drawn(told, width) == golden.read_text()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_frame_stays_within_its_width(scene, width):
    _, told = scene
    assert max(map(len, drawn(told, width).splitlines())) <= width


def test_long_names_give_way_to_numbers(scenes):
    told = scenes["progressing"]()
    told["status"]["evidence"]["objectives"][1]["name"] = "time-to-first-token-of-long-prompts"
    line = next(one for one in drawn(told, 80).splitlines() if "◌ time-to" in one)
    assert "…" in line
    assert "40/1650  1.9 (0.6–5.1)     4.5" in line


def test_frame_does_not_change_what_it_shows(scenes):
    told = scenes["harmed"]()
    before = copy.deepcopy(told)
    drawn(told, 80)
    assert told == before


def test_ages_count_from_the_latest_event_without_a_clock(scenes):
    told = scenes["degraded"]()
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(render(told, 80))
    assert console.file.getvalue().splitlines()[-1].split()[:3] == ["0s", "⚠", "RolledBack"]


def test_square_brackets_are_text_not_markup(scenes):
    told = scenes["healthy"]()
    told["status"]["message"] = "[red]spec.tiers[0][/red]"
    assert "[red]spec.tiers[0][/red]" in drawn(told, 80)


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [(0.0, "░░░░"), (0.001, "█░░░"), (0.5, "██░░"), (0.999, "███░"), (1.0, "████")],
)
def test_bar_is_full_only_at_the_end(fraction, shown):
    assert bar(fraction, 4, "green").plain == shown
