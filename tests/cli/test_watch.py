"""Looking again and again."""

import io

import pytest
from rich.console import Console

from weir_cli.client import Client, MissingError
from weir_cli.watch import Look, View, changes

KEY = "llm/assistant"


@pytest.fixture
def view(management, scenes):
    management.routes = {KEY: scenes["progressing"]()}
    return View(Client(management.url), KEY)


def text(view, look):
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(view.picture(look, 80))
    return console.file.getvalue()


def test_route_that_vanishes_stays_in_view_with_a_warning(view, management):
    view.look()
    management.routes.clear()
    shown = text(view, view.look())
    assert shown.startswith("⚠ no route llm/assistant\n◌ Progressing  llm/assistant")


def test_route_that_never_was_is_an_error(management):
    with pytest.raises(MissingError, match="no route llm/other"):
        View(Client(management.url), "llm/other").look()


def test_time_alone_is_no_change():
    look = Look(told={"a": 1}, now_s=1.0)
    assert Look(told={"a": 1}, now_s=2.0).same_as(look)
    assert not Look(told={"a": 2}, now_s=2.0).same_as(look)
    assert not look.same_as(None)


def test_log_gets_a_frame_only_when_something_changed(view, management, scenes):
    times = iter(range(5))

    def pause():
        at = next(times)
        if at == 2:
            management.routes[KEY] = scenes["degraded"]()
        if at == 4:
            raise KeyboardInterrupt

    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        changes(view, view.look(), Console(file=out, width=80), pause)
    assert [line.split()[1] for line in out.getvalue().splitlines() if KEY in line] == [
        "Progressing",
        "Degraded",
    ]
