"""What the operator counts, for Prometheus: walks, API calls, routers, identities, trips.

Read when scraped from what the parts hold anyway, so counting costs nothing on the way.
"""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from weir_operator.kube import Kube
from weir_operator.leader import Leader
from weir_operator.walk import Walker


class Metrics(Collector):
    """All of one operator's metrics."""

    def __init__(self, kube: Kube, leader: Leader, walker: Walker) -> None:
        self._kube = kube
        self._leader = leader
        self._walker = walker

    def collect(self) -> Iterator[Metric]:
        """Yield every family; called by the scrape."""
        yield GaugeMetricFamily(
            "weir_operator_leader", "Whether this operator acts", float(self._leader.leads)
        )
        walks = CounterMetricFamily("weir_operator_walks", "Walks of a namespace")
        walks.add_metric([], self._walker.walks)
        yield walks
        seconds = CounterMetricFamily("weir_operator_walk_seconds", "Time spent in walks")
        seconds.add_metric([], self._walker.walk_s)
        yield seconds
        calls = CounterMetricFamily(
            "weir_operator_api_calls", "Requests to the API", labels=["verb", "kind", "code"]
        )
        for (verb, kind, code), count in sorted(self._kube.calls.items()):
            calls.add_metric([verb, kind, str(code)], count)
        yield calls
        figures = self._walker.figures()
        for name, (help, series) in figures.items():
            gauge = GaugeMetricFamily(name, help, labels=["namespace"])
            for namespace, value in sorted(series.items()):
                gauge.add_metric([namespace], value)
            yield gauge
