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
