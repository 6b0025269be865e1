"""What the demo prints: plain lines where nobody watches, live pictures on a terminal."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from weir_cli.demo_figures import Measured, Outcome
from weir_cli.demo_figures import Table as Figures
from weir_cli.demo_manifests import Change, Facts
from weir_cli.demo_processes import Weir
from weir_cli.demo_rollout import Progress
from weir_cli.frame import render

WIDEST = 100
INDENT = 2
DEEPER = 5
TALL = 45
"""From this height on there is room for events below the evidence."""
_WORDS = {"Promoted": "promoted", "RolledBack": "rolled back"}


class Screen:
    """Where the demo is seen. `console` says whether that is a terminal, and how wide."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = min(console.width, WIDEST)

    def head(self, questions: int, parameters: Mapping[str, int]) -> None:
        """Say what this is."""
        sizes = " and ".join(f"{count / 1e6:.2f}" for count in parameters.values())
        self._line("[bold]Weir demo[/]   a small model first, verified; a large one when unsure")
        self._line(
            f"Two language models, really trained ({sizes} million parameters), and {questions:,} "
            "questions to a bank that neither has seen (banking77, test set)."
        )

    def runs(self, urls: Mapping[str, str], weir: Weir, folder: str) -> None:
        """Say what was started and where."""
        rows = [(f"model server {name}", url) for name, url in urls.items()]
        rows += [
            ("weir, for clients", weir.public),
            ("weir, management", weir.admin),
            ("its manifests", folder),
        ]
        grid = _grid()
        for name, place in rows:
            grid.add_row(Text(name, "dim"), place)
        self._console.print()
        self._indented(grid)

    def title(self, text: str, note: str = "") -> None:
        """Begin a part."""
        self._line("")
        self._console.print(Text.assemble((text, "bold"), (f"   {note}" if note else "", "dim")))

    @contextlib.contextmanager
    def counting(self, of: int) -> Iterator["Count"]:
        """Show how many questions are answered, on a terminal while it goes on."""
        with self._live() as live:
            yield Count(live, of)

    def table(self, figures: Figures, known: Facts) -> None:
        """Print the three side by side, and what they come to."""
        grid = _grid("", ">right", ">cost of 1M questions", ">of always-large", ">large asked")
        rows = (
            ("always small", figures.small),
            ("always large", figures.large),
            ("cascade", figures.cascade),
        )
        for name, one in rows:
            grid.add_row(*_measured(name, one, figures.large), style=_loud(name == "cascade"))
        self._console.print()
        self._indented(grid)
        self._console.print()
        self._say(_comparison(figures))
        prices = "small {small}, large {large}".format(
            **{name: f"{float(price):.2f}" for name, price in known.prices.items()}
        )
        self._say(
            "Cost is tokens × price. Prices are in proportion to the models' arithmetic: one unit "
            f"a TFLOP, so {prices} for a million tokens.",
            "dim",
        )

    @contextlib.contextmanager
    def rollout(self, number: int, change: Change) -> Iterator["Rolling"]:
        """Show a change, and how it fares while it goes on."""
        self._console.print()
        head = Text.assemble((f"{number}  ", "bold"), (change.name, "bold"), f"  {change.title}")
        self._indented(head)
        field, before = change.before.split(": ", 1)
        after = change.after.split(": ", 1)[1]
        edit = Text.assemble((f"{change.file}  ", "dim"), f"{field}: ", (before, "red"), " → ")
        self._indented(edit.append(after, "green"), left=DEEPER)
        with self._live() as live:
            yield Rolling(self._console, live, self._width)

    def verdict(self, outcome: Outcome) -> None:
        """Print how a change ended, in a sentence with the numbers."""
        sign, style = _sign(outcome)
        self._indented(Text.assemble((f"{sign} ", style), _sentence(outcome)), left=DEEPER)

    def summary(self, outcomes: Sequence[Outcome]) -> None:
        """Print all verdicts in one table, and what the audits cost."""
        titles = ("", "change", "verdict", "evidence", ">requests", ">to canary", ">wrong")
        grid = _grid(*titles, ">audits")
        for one in outcomes:
            sign, style = _sign(one)
            grid.add_row(
                Text(sign, style),
                one.change.name,
                _WORDS.get(one.verdict, one.verdict),
                _evidence(one),
                f"{one.requests:,}",
                f"{one.canary_requests:,}",
                f"{one.bad_served:,}",
                f"{one.audits:,}",
            )
        self.title(
            "Summary", "E of 100 rolls back, of 20 promotes; wrong by labels that Weir never saw"
        )
        self._console.print()
        self._indented(grid)
        self._console.print()
        cost, audit_cost = (sum(one.cost for one in outcomes), sum(o.audit_cost for o in outcomes))
        self._say(
            f"The answers to these {sum(one.requests for one in outcomes):,} requests cost "
            f"{cost:.3f}; the audits of {sum(one.audits for one in outcomes):,} of them "
            f"{audit_cost:.3f} on top, while a canary was out."
        )

    def end(self, *, wrong: Sequence[Outcome], seconds: float, json_file: str) -> None:
        """Say whether all ended as it should, and what to do next."""
        self._console.print()
        for one in wrong:
            expected = f"{one.change.expected} ({' or '.join(one.change.suspects) or 'proof'})"
            self._say(f"{one.change.name}: saw {one.verdict}, wanted {expected}", "bold red")
        done = "All as it should be" if not wrong else "Not all as it should be"
        saved = f"; numbers in {json_file}" if json_file else ""
        self._say(f"{done}, in {seconds:.0f} s{saved}.", "" if wrong else "bold")
        self._say(
            "Next: make demo DEMO=--keep, then edit a manifest yourself and watch what Weir does."
        )

    def kept(self, weir: Weir, folder: str) -> None:
        """Say what still runs, and what can be done with it."""
        self.title("Still running", "Ctrl-C ends it; questions go on to assistant")
        for text in (
            f"edit     {folder}/assistant.yaml",
            f"watch    weir watch assistant --server {weir.admin}",
            f"ask      curl -i {weir.public}/v1/chat/completions \\",
            "           -H 'content-type: application/json' \\",
            '           -d \'{"model": "assistant",',
            '                "messages": [{"role": "user", "content": "where is my card?"}]}\'',
        ):
            self._indented(Text(text, no_wrap=True))

    def stopped(self) -> None:
        """Say that an interrupt was heard: all ends now, and the manifests go with it."""
        self._say("Stopped.")

    def _line(self, text: str) -> None:
        self._indented(Text.from_markup(text), left=0)

    def _say(self, text: str, style: str = "") -> None:
        self._indented(Text(text, style))

    def _indented(self, shown: Text | Table, *, left: int = INDENT) -> None:
        """Print words wrapped, with no blanks at the ends of lines, and tables as they are."""
        if isinstance(shown, Table):
            self._console.print(Padding(shown, (0, 0, 0, left), expand=False))
            return
        for line in shown.wrap(self._console, self._width - left):
            line.rstrip()
            self._console.print(Text(" " * left).append_text(line))

    @contextlib.contextmanager
    def _live(self) -> Iterator[Live | None]:
        if not self._console.is_terminal:
            yield None
            return
        with Live(console=self._console, transient=True, auto_refresh=False) as live:
            yield live


class Count:
    """A line that says how far the questions are."""

    def __init__(self, live: Live | None, of: int) -> None:
        self._live, self._of = live, of
        self._began_s = self._drawn_s = time.monotonic()

    def __call__(self, done: int) -> None:
        now_s = time.monotonic()
        if self._live is None or now_s - self._drawn_s < 0.1:
            return
        self._drawn_s = now_s
        full = 40 * done // self._of
        pace = done / (now_s - self._began_s)
        told = f"  {'━' * full}{'─' * (40 - full)}  {done:,} of {self._of:,}   {pace:,.0f} a second"
        self._live.update(Text(told, "cyan"), refresh=True)


class Rolling:
    """How a rollout fares: the picture of `weir watch`, or a line whenever its step changes."""

    def __init__(self, console: Console, live: Live | None, width: int) -> None:
        self._console, self._live, self._width = console, live, width
        self._step = ""

    def __call__(self, progress: Progress) -> None:
        if self._live is not None:
            events = 3 if self._console.height >= TALL else 0
            told = render(progress.told, self._width - DEEPER, now_s=time.time(), events=events)
            self._live.update(Padding(told, (1, 0, 0, DEEPER)), refresh=True)
        elif progress.step != self._step:
            self._console.print(f"     {progress.sentence}", highlight=False, soft_wrap=True)
        self._step = progress.step


def _grid(*titles: str) -> Table:
    """Return a table without lines; a title with > stands right."""
    grid = Table(
        box=None,
        show_header=bool(titles),
        header_style="dim",
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    for title in titles or ("", ""):
        grid.add_column(title.lstrip(">"), justify="right" if title.startswith(">") else "left")
    return grid


def _loud(is_loud: bool) -> str:
    return "bold" if is_loud else ""


def _measured(name: str, one: Measured, large: Measured) -> tuple[str, ...]:
    low, high = one.interval
    asked = one.share_of("large")
    return (
        name,
        f"{one.accuracy:.1%} ± {(high - low) / 2 * 100:.1f}",
        f"{one.cost / len(one.answers) * 1e6:,.1f}",
        f"{one.cost / large.cost:.0%}",
        f"{asked:.0%}" if name != "cascade" else f"{asked:.1%}",
    )


def _comparison(figures: Figures) -> str:
    difference, (low, high) = figures.against_large
    side = "below" if difference < 0 else "above"
    return (
        f"The cascade is {abs(difference) * 100:.1f} points {side} always-large (95 % interval "
        f"{low * 100:+.1f} to {high * 100:+.1f}, paired) at {figures.cost_ratio:.0%} of its cost."
    )


def _sign(outcome: Outcome) -> tuple[str, str]:
    if not outcome.as_expected:
        return "!", "bold red"
    return {"Promoted": ("✔", "bold green"), "RolledBack": ("✖", "bold yellow")}[outcome.verdict]


def _evidence(one: Outcome) -> str:
    why = one.suspect if one.verdict == "RolledBack" else "proof"
    return f"{why}, E {_number(one.e_value)}"


def _sentence(one: Outcome) -> str:
    after = f"after {one.seconds:.1f} s and {one.requests:,} requests"
    served = (
        f"{one.bad_served:,} of the canary's {one.canary_requests:,} answers were wrong "
        f"({_share(one.bad_served, one.canary_requests)}; stable {one.stable_wrong:.0%})"
    )
    if one.verdict == "Promoted":
        return (
            f"Promoted {after}: proven to do no harm (E {_number(one.e_value)} of "
            f"{_number(one.threshold)} in the objective proven least, {one.audits:,} audits); "
            f"{served}."
        )
    if one.verdict == "RolledBack":
        return (
            f"Rolled back {after} by {one.decided_by}, for {one.suspect} (E "
            f"{_number(one.e_value)} of {_number(one.threshold)}, {one.audits:,} audits); {served}."
        )
    return f"{one.verdict} {after}; {served}."


def _share(part: int, of: int) -> str:
    return f"{part / of:.0%}" if of else "none"


def _number(value: float) -> str:
    return f"{value:.1e}" if value >= 1e6 else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
