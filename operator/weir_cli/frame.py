"""One picture of a route: where its rollout stands, what the evidence says, who serves.

`render` is pure, so that the live view, the demo and the tests all show the same. Meaning never
hangs on colour alone: every state has its sign.
"""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from weir_cli import parts
from weir_cli.parts import Told
from weir_core.figures import percent
from weir_core.snapshot import FULL_BP

PHASES = {
    "Healthy": ("✔", "green"),
    "Progressing": ("◌", "cyan"),
    "Paused": ("॥", "yellow"),
    "Degraded": ("✖", "red"),
}
VERDICTS = {
    "InsufficientData": ("·", "dim"),
    "NoHarmYet": ("◌", "cyan"),
    "Safe": ("✔", "green"),
    "Harm": ("✖", "red"),
}
ALARMS = ("Accepted", "ResolvedRefs", "Programmed", "StableHealthy")
"""Conditions that are told of when they are False; the sentence has the others."""

MOST_CHANGES = 3
"""What a canary changes, in so many lines; `weir describe` has all."""

FULL, PART, EMPTY = "█", "▒", "░"
WIDE = 100
"""From this width on there is room for words beside signs."""
NARROW = 76
"""Below this width bars are short."""


def render(
    told: Told, width: int, *, now_s: float | None = None, events: int = 6
) -> RenderableType:
    """Return the picture of what GET /weir/v1/routes/{namespace}/{name} told, `width` columns.

    `now_s` is for ages, seconds since the epoch; without it, ages count from the latest event.
    With no room for `events` there is none for what a canary changes.
    """
    at_s = parts.latest_s(told) if now_s is None else now_s
    status = told["status"]
    blocks = [
        _head(told, status, width),
        _alarms(told, status, at_s),
        _rollout(status, width),
        _changes(status) if events else None,
        _evidence(status, width),
        _tiers(told, width),
        _events(told, at_s, events),
    ]
    lines: list[RenderableType] = []
    for block in blocks:
        if block is not None:
            lines += [Text(""), block] if lines else [block]
    return Constrain(Group(*lines), width)


def _grid(*columns: tuple[str, str], header: bool = False) -> Table:
    """Return a table without lines; a column is (title, "left", "right", "name" or "rest").

    Where room is short, names give way first: their cells are made by `_name`.
    """
    table = Table(
        box=None,
        show_header=header,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        expand=any(justify == "rest" for _, justify in columns),
        header_style="bold",
    )
    for title, justify in columns:
        table.add_column(
            title,
            justify="right" if justify == "right" else "left",
            no_wrap=justify != "name",
            overflow="ellipsis",
            ratio=1 if justify == "rest" else None,
        )
    return table


def _cells(width: int, *, narrow: int, wide: int) -> int:
    """Return how long bars are; on a very narrow screen they give way to the numbers."""
    if width >= WIDE:
        return wide
    return narrow if width >= NARROW else 6


def _name(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def bar(fraction: float, cells: int, style: str, *, part: float = 0.0) -> Text:
    """Return a bar filled to `fraction`, and a further `part` in a lighter shade."""
    full = round(fraction * cells)
    # What is not nothing shows, and what is not all does not look it.
    if 0 < fraction < 1:
        full = min(max(full, 1), cells - 1)
    light = min(cells - full, round(part * cells))
    text = Text(FULL * full, style)
    text.append(PART * light, style)
    return text.append(EMPTY * (cells - full - light), "dim")


# The parts, top to bottom.


def _head(told: Told, status: Told, width: int) -> RenderableType:
    icon, style = PHASES.get(status["phase"], ("⚠", "yellow"))
    title = Text(f"{icon} {status['phase']}  ", f"bold {style}")
    title.append(f"{told['namespace']}/{told['name']}", "bold")
    models = ", ".join(told["modelNames"])
    if models != told["name"]:
        title.append(f"  serves {models}", "dim")
    title.truncate(width, overflow="ellipsis")
    return Group(title, Text(status["message"]))


def _alarms(told: Told, status: Told, now_s: float) -> RenderableType | None:
    """Return why it stands still, and all that is wrong with it, each once."""
    still = parts.standstill(status)
    conditions = [
        f"{one['type']}: {one['message']}"
        for one in status["conditions"]
        if one["type"] in ALARMS and one["status"] == "False" and one["message"] not in still
    ]
    shown = "\n".join(conditions)
    problems = [problem for problem in told.get("problems", ()) if problem not in shown]
    sign = PHASES["Paused"][0]
    lines = [f"{sign} {one}" for one in still]
    lines += [f"⚠ {one}" for one in (*conditions, *problems, *parts.outages(told, now_s))]
    return Group(*(Text(line, "yellow") for line in lines)) if lines else None


def _changes(status: Told) -> RenderableType | None:
    found = list(status["canary"].get("changes", ()))
    if not found:
        return None
    more = len(found) - MOST_CHANGES
    shown = found[:MOST_CHANGES] + ([f"and {more} more"] if more > 0 else [])
    return Group(Text("CHANGES", "bold"), *map(Text, shown))


def _rollout(status: Told, width: int) -> RenderableType | None:
    stable, canary, step = status["stable"], status["canary"], status["step"]
    share = parts.number(status["weight"]["set"]) / 100
    cells = _cells(width, narrow=20, wide=40)
    table = _grid(("", "left"), ("", "name"), ("", "right"), ("", "left"))
    if step["progress"]:
        table.add_row(Text("Step", "bold"), *_step(step, cells))
    if canary["revision"]:
        sign, style = ("✖ ", "bold red") if parts.is_refused(status) else ("", "bold yellow")
        mark = Text(f"{sign}Canary #{canary['attempt']}", style)
        weight, actual = status["weight"]["set"], status["weight"]["actual"]
        filled = bar(share, cells, "yellow")
        if actual and width >= WIDE:
            filled.append(f" {actual} measured", "dim")
        table.add_row(mark, _name(canary["revision"]), weight, filled)
    if stable["revision"]:
        rest = 1 - share
        name = _name(stable["revision"])
        table.add_row(
            Text("Stable", "bold green"), name, percent(rest * FULL_BP), bar(rest, cells, "green")
        )
    last = status["lastRollback"]
    if parts.is_refused(status) and last and last["eValue"]:
        why = f"{last['reason']} on {last['suspect']}" if last["suspect"] else last["reason"]
        reached = _e_bar(last["eValue"], last["threshold"], cells)
        table.add_row(Text("Evidence", "bold"), why, f"E {last['eValue']}", reached)
    return table if table.row_count else None


def _step(step: Told, cells: int) -> tuple[Text, str, Text]:
    of = step["of"] or 1
    steps_left = step["progress"] == f"{step['index']}/{step['of']}"
    done = (step["index"] - 1) / of if steps_left else 1.0
    now = 1 / of if steps_left else 0.0
    return _name(step["kind"]), step["progress"], bar(done, cells, "cyan", part=now)


def _evidence(status: Told, width: int) -> RenderableType | None:
    objectives = status["evidence"]["objectives"]
    if not objectives:
        return None
    threshold, wide = status["threshold"], width >= WIDE
    cells = _cells(width, narrow=14, wide=24)
    columns = [("EVIDENCE", "name"), ("CANARY", "right"), ("STABLE", "right")]
    columns += [("RATIO (95 %)", "left"), ("E", "right"), (_scale(threshold, cells), "left")]
    table = _grid(*columns, *([("VERDICT", "left")] if wide else []), header=True)
    for one in objectives:
        sign, style = VERDICTS.get(one["verdict"], ("·", "dim"))
        name = _name(f"{'⚠' if one['suspect'] else sign} {one['name']}", style)
        cell = _e_bar(one["eValue"], threshold, cells)
        row = [name, one["canary"], one["stable"], parts.interval(one), one["eValue"], cell]
        table.add_row(*row, *([Text(_verdict(one), style)] if wide else []))
    settled = status["evidence"]["settled"]
    total = _e_bar(status["eValue"], threshold, cells)
    sums = [str(settled["canary"]), str(settled["stable"]), "", status["eValue"], total]
    verdict = [Text(status["verdict"])] if wide else []
    table.add_row(_name("= all", "bold"), *sums, *verdict, style="bold")
    return table


def _verdict(objective: Told) -> str:
    mode = "" if objective["mode"] == "Enforce" else f" ({objective['mode']})"
    return f"{objective['verdict']}{mode}"


def _scale(threshold: str, cells: int) -> str:
    """Return the header of the bars: E from 1 to the threshold."""
    return f"1{threshold:>{cells - 1}}"


def _e_bar(e_value: str, threshold: str, cells: int) -> Text:
    reached = parts.e_fraction(e_value, threshold)
    return bar(reached, cells, "red" if reached >= 1 else "yellow" if reached >= 0.5 else "green")


def _tiers(told: Told, width: int) -> RenderableType | None:
    tiers, saved = parts.tier_shares(told), parts.saving(told)
    if not tiers:
        return None
    cells = _cells(width, narrow=14, wide=30)
    columns = (("TIERS", "name"), ("ANSWERED", "right"), ("SHARE", "right"), ("", "left"))
    numbers = (("TOKENS IN", "right"), ("OUT", "right"), ("COST", "right"))
    table = _grid(*columns, *numbers, header=True)
    for tier, cost in zip(tiers, parts.costs(tiers), strict=True):
        table.add_row(
            _name(tier.name),
            f"{tier.requests:,}",
            f"{tier.share:.1%}",
            bar(tier.share, cells, "blue"),
            f"{tier.input_tokens:,}",
            f"{tier.output_tokens:,}",
            cost,
        )
    if saved is None:
        return table
    return Group(table, Text(saved.text(), "bold green" if saved.share >= 0 else "bold red"))


def _events(told: Told, now_s: float, at_most: int) -> RenderableType | None:
    latest = list(_latest(told, at_most))
    if not latest:
        return None
    table = _grid(("EVENTS", "left"), ("", "left"), ("", "rest"), header=True)
    for one in latest:
        warned = one["type"] == "Warning"
        reason = Text(f"⚠ {one['reason']}" if warned else f"  {one['reason']}")
        reason.stylize("yellow" if warned else "")
        table.add_row(parts.age(one["at"], now_s), reason, Text(one["message"]))
    return table


def _latest(told: Told, at_most: int) -> Iterator[Told]:
    yield from list(reversed(told["events"]))[:at_most]
