"""What the router counts, as plain integers, read by Prometheus only when it scrapes.

Bound series cost 0.2 µs an observation where prometheus_client's labels cost 25
(`notes` of the design). Labels are routes, revisions, arms and tiers of the configuration, so
their number is bounded; series of revisions that are gone are dropped. No prompt, no answer.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

UNIT_PICO = 10**12
ANSWERED = 200
"""Status of a reply that is an answer."""
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_KEPT_REVISIONS = 64
_DURATION = ("weir_request_duration_seconds", "Time from request to the end of its reply")
_FIRST = ("weir_time_to_first_token_seconds", "Time from request to the reply's first byte")


class Histogram:
    """Counts per bucket and a sum, in seconds."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Add one observation."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Return (upper bound, count up to it) as the exposition wants them."""
        total = 0
        rows = []
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


class Served:
    """The series of one (route, revision, arm, tier): what was served there."""

    __slots__ = ("cost_pico", "duration", "first", "input_tokens", "output_tokens", "requests")

    def __init__(self) -> None:
        self.requests: dict[int, int] = {}
        self.duration = Histogram()
        self.first = Histogram()
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost_pico = 0

    def count(self, status: int) -> None:
        """Count one reply by its HTTP status."""
        self.requests[status] = self.requests.get(status, 0) + 1


Labels = tuple[str, ...]


class Metrics(Collector):
    """All counters of one router. Counting never blocks and never allocates a label."""

    def __init__(self) -> None:
        self.served: dict[tuple[str, str, str, str], Served] = {}
        self.counters: dict[str, dict[Labels, int]] = {name: {} for name in _COUNTERS}
        self.in_flight: Callable[[], int] = lambda: 0
        self.gauges: dict[str, dict[Labels, float]] = {name: {} for name in _GAUGES}

    def series(self, route: str, revision: str, arm: str, tier: str) -> Served:
        """Return the bound series, made on first use."""
        key = (route, revision, arm, tier)
        found = self.served.get(key)
        if found is None:
            found = self.served[key] = Served()
        return found

    def count(self, name: str, labels: Labels, by: int = 1) -> None:
        """Add to one of the counters in `_COUNTERS`."""
        series = self.counters[name]
        series[labels] = series.get(labels, 0) + by

    def gauge(self, name: str, labels: Labels, value: float) -> None:
        """Set one of the gauges in `_GAUGES`."""
        self.gauges[name][labels] = value

    def weigh(self, route: str, weight: float, now_s: float) -> None:
        """Set a route's canary weight, and since when it is that."""
        if self.gauges["weir_canary_weight"].get((route,)) != weight:
            self.gauge("weir_canary_weight", (route,), weight)
            self.gauge("weir_canary_weight_since_timestamp_seconds", (route,), now_s)

    def forget(self, live: Iterable[str]) -> None:
        """Drop the series of revisions that are gone, once there are too many of them."""
        revisions = {key[1] for key in self.served}
        if len(revisions) > _KEPT_REVISIONS:
            gone = revisions - set(live)
            self.served = {key: kept for key, kept in self.served.items() if key[1] not in gone}
            for name in _BY_REVISION:
                series = self.counters[name]
                self.counters[name] = {key: n for key, n in series.items() if key[1] not in gone}

    def totals(self, route: str) -> dict[str, dict[str, float]]:
        """Return answered requests, tokens and cost per tier of a route, over all its revisions."""
        tiers: dict[str, dict[str, float]] = {}
        for (name, _, _, tier), served in list(self.served.items()):
            if name != route or not tier:
                continue
            row = tiers.setdefault(tier, {"requests": 0, "inputTokens": 0, "outputTokens": 0})
            row["requests"] += served.requests.get(ANSWERED, 0)
            row["inputTokens"] += served.input_tokens
            row["outputTokens"] += served.output_tokens
            row["costPico"] = row.get("costPico", 0) + served.cost_pico
        return tiers

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; called by the scrape, outside the event loop."""
        yield from self._collect_served()
        for name, (help, labels) in _COUNTERS.items():
            counter = CounterMetricFamily(name, help, labels=labels)
            for key, value in list(self.counters[name].items()):
                scale = UNIT_PICO if name.endswith("cost") else 1
                counter.add_metric(list(key), value / scale)
            yield counter
        for name, (help, labels) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, help, labels=labels)
            for key, number in list(self.gauges[name].items()):
                gauge.add_metric(list(key), number)
            yield gauge
        yield GaugeMetricFamily("weir_requests_in_flight", "Requests in flight", self.in_flight())

    def _collect_served(self) -> Iterator[Metric]:
        labels = ["route", "revision", "arm", "tier"]
        requests = CounterMetricFamily(
            "weir_requests", "Replies by status", labels=[*labels, "code"]
        )
        tokens = CounterMetricFamily(
            "weir_tokens", "Tokens of the answers that were served", labels=[*labels, "direction"]
        )
        cost = CounterMetricFamily(
            "weir_cost", "Cost of served requests, all attempts, in price units", labels=labels
        )
        duration = HistogramMetricFamily(*_DURATION, labels=labels)
        first = HistogramMetricFamily(*_FIRST, labels=labels)
        for key, served in list(self.served.items()):
            for code, count in list(served.requests.items()):
                requests.add_metric([*key, str(code)], count)
            tokens.add_metric([*key, "input"], served.input_tokens)
            tokens.add_metric([*key, "output"], served.output_tokens)
            cost.add_metric(list(key), served.cost_pico / UNIT_PICO)
            duration.add_metric(list(key), served.duration.cumulative(), served.duration.sum_s)
            first.add_metric(list(key), served.first.cumulative(), served.first.sum_s)
        yield from (requests, tokens, cost, duration, first)


_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "weir_attempts": ("Calls to backends by how they ended", ("route", "backend", "end")),
    "weir_escalations": ("Answers not accepted, by check", ("route", "revision", "tier", "check")),
    "weir_monitor_failures": (
        "Served answers that a monitor found bad",
        ("route", "revision", "monitor"),
    ),
    "weir_audits": ("Audits by result", ("route", "result")),
    "weir_audit_cost": ("Cost of audits, in price units", ("route",)),
    "weir_labels": (
        "Labels by what became of them: held until their window is over, fine, late, again, unused",
        ("route", "arm", "result"),
    ),
    "weir_labels_elsewhere": (
        "Labels for replies of other routers: taken or unknown there, or it was unreachable",
        ("result",),
    ),
    "weir_labels_forgone": (
        "Replies that could no longer be labelled, for too many came after them",
        ("route",),
    ),
    "weir_connections_refused": ("Requests refused for there were too many connections", ()),
    "weir_accept_failures": ("Times that the system had no room for one more connection", ()),
    "weir_refused": ("Requests refused before the draw", ("code",)),
    "weir_brake_trips": ("Brakes tripped by this router", ("route", "suspect")),
}

_BY_REVISION = [name for name, (_, labels) in _COUNTERS.items() if "revision" in labels]
"""All of these have it second."""

_GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "weir_backend_ejected": ("1 while a backend gets probes only", ("backend", "identity")),
    "weir_canary_weight": ("Share of new requests drawn for the canary", ("route",)),
    "weir_canary_weight_since_timestamp_seconds": (
        "Since when that is so, in Unix seconds",
        ("route",),
    ),
    "weir_evidence_log_e": ("Evidence of harm, natural log of E", ("route",)),
    "weir_feed_connected": ("1 while the operator is heard", ()),
}
