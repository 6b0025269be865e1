"""What the router counts stays bounded by the configuration."""

from weir_router.telemetry import Metrics


def test_every_series_of_a_revision_goes_with_it_once_there_are_many() -> None:
    metrics = Metrics()
    for number in range(100):
        metrics.series("llm/a", f"r{number}", "stable", "small").count(200)
        metrics.count("weir_escalations", ("llm/a", f"r{number}", "small", "whole"))
        metrics.count("weir_monitor_failures", ("llm/a", f"r{number}", "whole"))
    metrics.count("weir_audits", ("llm/a", "agreed"))
    metrics.forget(["r99"])

    assert [key[1] for key in metrics.served] == ["r99"]
    assert [key[1] for key in metrics.counters["weir_escalations"]] == ["r99"]
    assert [key[1] for key in metrics.counters["weir_monitor_failures"]] == ["r99"]
    assert metrics.counters["weir_audits"] == {("llm/a", "agreed"): 1}


def test_a_weight_that_is_set_again_is_as_old_as_before() -> None:
    metrics = Metrics()
    metrics.weigh("llm/a", 0.25, 10.0)
    metrics.weigh("llm/a", 0.25, 11.0)
    since = metrics.gauges["weir_canary_weight_since_timestamp_seconds"]
    assert since == {("llm/a",): 10.0}
    metrics.weigh("llm/a", 0.0, 12.0)
    assert since == {("llm/a",): 12.0}
    assert metrics.gauges["weir_canary_weight"] == {("llm/a",): 0.0}


def test_what_a_tier_failed_is_not_what_it_answered() -> None:
    metrics = Metrics()
    series = metrics.series("llm/a", "a-1", "stable", "small")
    for status in (200, 200, 502, 499):
        series.count(status)
    assert metrics.totals("llm/a")["small"]["requests"] == 2
