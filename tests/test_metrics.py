"""The table of metrics: what is exported, and that alarms, dashboard and documentation name nothing else."""

from __future__ import annotations

import gc
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import Metric, ProcessCollector
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.registry import Collector

from gateway.core.distribution import Distribution
from gateway.ops.metrics import METRICS, Exporter, Kind, Process, Sample

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "monitoring" / "grafana" / "dashboards" / "gateway.json"
ALERTS = ROOT / "monitoring" / "alerts.yml"
MANUAL = ROOT / "docs" / "operations.md"

# What prometheus-client tells of the process, and Prometheus of the scrape.
GENERAL = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds", "up"}


def scraped(samples: dict[str, Sample], accept: str = "") -> dict[str, float]:
    body, _ = Exporter(lambda: samples).render(accept)
    return {
        sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
        for family in parse(body.decode())
        for sample in family.samples
        if sample.name.startswith("gateway_")
    }


def test_numbers_are_exported_under_their_names() -> None:
    assert scraped({"gateway_messages_received_total": 7, "gateway_subscribers": 2}) == {
        "gateway_messages_received_total{}": 7,
        "gateway_subscribers{}": 2,
    }


def test_labels_and_their_values_are_exported() -> None:
    assert scraped({"gateway_messages_lost_total": {"slow": 3, "evicted": 0}}) == {
        'gateway_messages_lost_total{"reason": "slow"}': 3,
        'gateway_messages_lost_total{"reason": "evicted"}': 0,
    }
    assert scraped({"gateway_info": {("1.2.3", "abc"): 1}}) == {'gateway_info{"epoch": "abc", "version": "1.2.3"}': 1}


def test_what_is_not_known_is_not_exported() -> None:
    assert scraped({"gateway_upstream_last_message_age_seconds": None}) == {}


def test_a_distribution_is_exported_as_a_histogram() -> None:
    delays = Distribution((0.01, 0.1))
    for value in (0.005, 0.01, 0.05, 3.0):
        delays.add(value)
    assert delays.count == 4
    assert scraped({"gateway_delivery_delay_seconds": delays}) == {
        'gateway_delivery_delay_seconds_bucket{"le": "0.01"}': 2,
        'gateway_delivery_delay_seconds_bucket{"le": "0.1"}': 3,
        'gateway_delivery_delay_seconds_bucket{"le": "+Inf"}': 4,
        "gateway_delivery_delay_seconds_count{}": 4,
        "gateway_delivery_delay_seconds_sum{}": pytest.approx(3.065),
    }


def test_a_name_outside_of_the_table_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="gateway_typo_total"):
        Exporter(lambda: {"gateway_typo_total": 1}).render()


def test_numbers_are_read_at_the_scrape_and_not_before() -> None:
    reads: list[int] = []

    def read() -> dict[str, Sample]:
        reads.append(1)
        return {"gateway_subscribers": len(reads)}

    exporter = Exporter(read)
    assert not reads
    exporter.render()
    assert b"gateway_subscribers 2.0" in exporter.render()[0]


def test_openmetrics_is_spoken_when_it_is_asked_for() -> None:
    exporter = Exporter(lambda: {"gateway_messages_received_total": 7, "gateway_info": {("1", "e"): 1}})
    body, content_type = exporter.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert {"gateway_messages_received", "gateway"} <= names
    assert exporter.render("text/html")[1].startswith("text/plain")


def test_the_process_is_described_too() -> None:
    body = Exporter(dict).render()[0].decode()
    assert "process_resident_memory_bytes" in body
    assert "python_info" in body


def test_names_follow_prometheus_conventions() -> None:
    for name, row in METRICS.items():
        assert re.fullmatch(r"gateway_[a-z_]+", name)
        assert name.endswith("_total") is (row.kind is Kind.COUNTER), name
        assert row.help.endswith("."), name
        for unit in ("_ms", "_milliseconds", "_mb", "_minutes"):
            assert unit not in name


def metric_names(expression: str) -> set[str]:
    """The metrics that a PromQL expression reads."""
    plain = re.sub(r"\{[^}]*\}", "", expression)
    plain = re.sub(r"\b(by|without)\s*\([^)]*\)", "", plain)
    return set(re.findall(r"\b(?:gateway_\w+|process_\w+|python_\w+|up)\b", plain))


def exists(name: str) -> bool:
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    histogram = base != name and base in METRICS and METRICS[base].kind is Kind.HISTOGRAM
    return name in GENERAL or histogram or (name in METRICS and METRICS[name].kind is not Kind.HISTOGRAM)


def expressions() -> Iterator[tuple[str, str]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield f"dashboard, {panel['title']}", target["expr"]
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alarm {rule['alert']}", rule["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_that_is_named_exists(where: str, expression: str) -> None:
    names = metric_names(expression)
    assert names, f"{where} reads nothing"
    for name in names:
        assert exists(name), f"{where} reads {name}, which does not exist"


def test_every_metric_has_its_place_on_the_dashboard() -> None:
    shown = set().union(*(metric_names(text) for where, text in expressions() if where.startswith("dashboard")))
    shown |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert METRICS.keys() - shown == {"gateway_info"}


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_label_that_is_named_exists(where: str, expression: str) -> None:
    for name, selector in re.findall(r"(gateway_\w+)\{([^}]*)\}", expression):
        for label in re.findall(r"(\w+)\s*[!=]=?~?", selector):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert label in (*METRICS[base].labels, "job", "instance"), f"{where}: {name} has no label {label}"


def test_the_dashboards_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def manual_table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of docs/operations.md, without its head."""
    section = MANUAL.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_the_manuals_table_of_metrics_is_that_of_the_code() -> None:
    expected = [
        [" ".join(f"`{name}`" for name in (row.name, *row.labels)), row.kind.value, row.help]
        for row in METRICS.values()
    ]
    assert manual_table("Metrics") == expected


def test_the_manual_says_of_every_alarm_what_to_do() -> None:
    alarms = [rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    table = manual_table("Alarms")
    assert [row[0].strip("`") for row in table] == alarms
    assert all(len(row) == 3 and row[1] and row[2] for row in table)


def test_every_metric_that_the_manual_names_exists() -> None:
    for name in re.findall(r"`(gateway_[a-z_]+)[`{]", MANUAL.read_text(encoding="utf-8")):
        assert exists(name) or METRICS[name].kind is Kind.HISTOGRAM, name


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")
def test_the_process_is_told_as_the_client_library_tells_it() -> None:
    def told(collector: Collector) -> dict[str, Metric]:
        return {family.name: family for family in collector.collect()}

    def far_apart() -> list[str]:
        ours, theirs = told(Process(registry=None)), told(ProcessCollector(registry=None))
        assert {name: family.documentation for name, family in ours.items()} == {
            name: family.documentation for name, family in theirs.items()
        }
        far = []
        for name, family in theirs.items():
            [sample], [its] = ours[name].samples, family.samples
            assert sample.name == its.name
            if sample.value != pytest.approx(its.value, rel=0.2, abs=2):
                far.append(f"{name}: {sample.value} against {its.value}")
        return far

    # what other threads of the tests' process open and close between the two answers is none of their difference
    assert min((far_apart() for _ in range(20)), key=len) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")
def test_open_files_are_counted_where_the_system_knows_their_number() -> None:
    def open_files() -> float:
        return next(f for f in Process(registry=None).collect() if f.name == "process_open_fds").samples[0].value

    def counted() -> float:
        before = open_files()
        files = [open(os.devnull) for _ in range(50)]  # noqa: SIM115, PTH123
        more = open_files() - before
        for file in files:
            file.close()
        return more

    # what the collector and other threads of the tests' process close between the two answers is none of the difference
    gc.collect()
    assert min(abs(counted() - 50) for _ in range(20)) <= 3
