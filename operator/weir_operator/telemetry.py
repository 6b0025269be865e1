"""What the operator counts, for Prometheus: walks, API calls, routers, identities, trips.

Read when scraped from what the parts hold anyway, so counting costs nothing on the way. kopf's
own requests are not counted: it has its own connections.
"""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from weir_operator.feed import Feed
from weir_operator.figures import FIGURES
from weir_operator.kube import Kube
from weir_operator.leader import Leader
from weir_operator.walk import Walker


class Counters:
    """What leads of one process have counted: those that are over, and the one that goes on."""

    def __init__(self) -> None:
        self._walks = 0
        self._walk_s = 0.0
        self._settles = 0, 0.0
        self._refused: Counter[str] = Counter()
        self._now: tuple[Walker, Feed] | None = None

    def show(self, walker: Walker, feed: Feed) -> None:
        """Count what these do from now on."""
        self._now = walker, feed

    def keep(self) -> None:
        """Add what was counted last; nothing goes on."""
        self._walks, self._walk_s, self._refused = self.walks, self.walk_s, self.refused
        self._settles, self._now = self.settles, None

    @property
    def walks(self) -> int:
        """Walks of all namespaces."""
        return self._walks + (self._now[0].walks if self._now else 0)

    @property
    def walk_s(self) -> float:
        """Seconds in them."""
        return self._walk_s + (self._now[0].walk_s if self._now else 0.0)

    @property
    def settles(self) -> tuple[int, float]:
        """Settles of all namespaces, and seconds in them."""
        now = self._now[0].settles if self._now else (0, 0.0)
        return self._settles[0] + now[0], self._settles[1] + now[1]

    @property
    def refused(self) -> "Counter[str]":
        """Reports of routers that were refused, in part or whole, by reason."""
        return self._refused + Counter(dict(self._now[1].refused) if self._now else {})

    def figures(self) -> dict[str, tuple[str, dict[str, float]]]:
        """Return gauges by name: what each is, and its value by namespace; none in a wait."""
        if self._now is None:
            return {name: (help, {}) for name, help in FIGURES.items()}
        return self._now[0].figures()


class Metrics(Collector):
    """All of one operator's metrics."""

    def __init__(self, kube: Kube, leader: Leader, counters: Counters) -> None:
        self._kube = kube
        self._leader = leader
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        """Yield every family; called by the scrape."""
        counters = self._counters
        yield GaugeMetricFamily(
            "weir_operator_leader", "Whether this operator acts", float(self._leader.leads)
        )
        yield CounterMetricFamily("weir_operator_walks", "Walks of a namespace", counters.walks)
        yield CounterMetricFamily(
            "weir_operator_walk_seconds", "Time spent in walks' quick halves", counters.walk_s
        )
        settles, settle_s = counters.settles
        yield CounterMetricFamily(
            "weir_operator_settles", "Walks' slow halves: saved, applied, told", settles
        )
        yield CounterMetricFamily("weir_operator_settle_seconds", "Time spent in them", settle_s)
        calls = CounterMetricFamily(
            "weir_operator_api_calls",
            "Requests to the API; code 0 for those that got no answer",
            labels=["verb", "kind", "code"],
        )
        for (verb, kind, code), count in sorted(self._kube.calls.items()):
            calls.add_metric([verb, kind, str(code)], count)
        yield calls
        refused = CounterMetricFamily(
            "weir_operator_reports_refused",
            "Reports of routers that were not believed, or in part",
            labels=["reason"],
        )
        for reason, count in sorted(counters.refused.items()):
            refused.add_metric([reason], count)
        yield refused
        for name, (help, series) in counters.figures().items():
            gauge = GaugeMetricFamily(name, help, labels=["namespace"])
            for namespace, value in sorted(series.items()):
                gauge.add_metric([namespace], value)
            yield gauge
