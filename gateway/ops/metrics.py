"""What Prometheus reads: one table of metrics, and a collector that looks at plain counters when it is asked.

Invariant: nothing counts through this module. A part of the gateway keeps numbers for itself; `read` gathers them at a
scrape, and `METRICS` says what they mean. What isn't in the table isn't exported, and a test holds docs/operations.md,
the alarms and the Grafana dashboard to it.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.core.distribution import Distribution

__all__ = ["METRICS", "Description", "Exporter", "Kind", "Sample"]


class Kind(enum.Enum):
    """Prometheus' types, as far as they are used."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Description:
    """One metric.

    Attributes:
        name: as Prometheus shows it, `_total` included.
        kind: its type.
        help: what it is, in a sentence.
        labels: names of its labels, in the order of a sample's key.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


Sample = float | Mapping[Any, float] | Distribution | None
"""A number; or numbers by the value of the label, or of the labels; or a distribution; None where it isn't known."""

_C, _G = Kind.COUNTER, Kind.GAUGE

METRICS: Mapping[str, Description] = {
    row.name: row
    for row in (
        Description(
            "gateway_info", Kind.INFO, "Version of the gateway and epoch of its history.", ("version", "epoch")
        ),
        # messages
        Description("gateway_messages_received_total", _C, "Messages that arrived and were new."),
        Description(
            "gateway_messages_repeated_total", _C, "Retained messages that the broker only repeated after a reconnect."
        ),
        Description("gateway_messages_delivered_total", _C, "Messages written, summed over subscribers."),
        Description("gateway_messages_replayed_total", _C, "Of the delivered messages, those that came from history."),
        Description(
            "gateway_messages_skipped_total",
            _C,
            "Messages conflated or filtered away as asked, summed over subscribers.",
        ),
        Description(
            "gateway_messages_beyond_where_total",
            _C,
            "Messages that a `where` passed over since they were too large to be compared, once for each group.",
        ),
        Description(
            "gateway_messages_lost_total",
            _C,
            "Messages that subscribers were told they will not get, by reason, summed over subscribers.",
            ("reason",),
        ),
        Description(
            "gateway_gaps_total",
            _C,
            "Gaps in what subscribers got, by reason: also those of which nobody knows how many messages are lost.",
            ("reason",),
        ),
        Description(
            "gateway_delivery_delay_seconds",
            Kind.HISTOGRAM,
            "From when the gateway takes the oldest message of a flush to the end of that flush, when it is with the "
            "system for all live subscribers; the network on both sides is not in it.",
        ),
        Description(
            "gateway_loop_stall_seconds",
            Kind.HISTOGRAM,
            "How late the event loop came to what was due, asked ten times a second: what one of its turns or another "
            "program took is what everyone else waited.",
        ),
        # flushes
        Description("gateway_flushes_total", _C, "Rounds of writes."),
        Description("gateway_flush_seconds_total", _C, "Processor time spent in flushes."),
        Description("gateway_flush_writes_total", _C, "Writes to sockets by flushes."),
        Description("gateway_flush_bytes_total", _C, "Bytes written to sockets by flushes."),
        # subscribers
        Description("gateway_subscribers", _G, "Subscribers that are connected now."),
        Description("gateway_groups", _G, "Different sets of topic filters and shapes in use now."),
        Description("gateway_subscribers_slow", _G, "Subscribers whose socket takes no more for now."),
        Description("gateway_subscribers_slowed_total", _C, "How often a subscriber left the live path as too slow."),
        Description(
            "gateway_subscribers_closed_slow_total", _C, "Subscribers closed because they took nothing for long."
        ),
        Description(
            "gateway_shapes_shed_total",
            _C,
            "How often an interval ended early or a deadband was forgotten since all shapes held too much.",
        ),
        Description("gateway_buffer_bytes", _G, "Bytes that wait in the write buffers of all sockets."),
        Description("gateway_connections", _G, "Connections that are open now."),
        Description("gateway_requests", _G, "HTTP requests that are being answered now, event streams included."),
        Description("gateway_connections_limit", _G, "The most connections that may be open."),
        Description("gateway_tls_expiry_timestamp_seconds", _G, "When the gateway's own certificate ends."),
        # what was refused, asked for and published
        Description("gateway_refused_total", _C, "Requests and commands refused, by reason.", ("reason",)),
        Description("gateway_authentications_total", _C, "Tokens judged, by result.", ("result",)),
        Description("gateway_revocations", _G, "Tokens and subjects that are called back, of which 10,000 are kept."),
        Description("gateway_publishes_total", _C, "Messages that clients published, by result.", ("result",)),
        # history
        Description("gateway_history_messages", _G, "Messages in history."),
        Description("gateway_history_topics", _G, "Topics in history."),
        Description("gateway_history_topics_limit", _G, "The most topics that history keeps."),
        Description("gateway_history_bytes", _G, "Bytes that history takes."),
        Description("gateway_history_bytes_limit", _G, "The most bytes that history takes."),
        Description("gateway_history_evicted_total", _C, "Messages that history let go."),
        Description(
            "gateway_history_dropped_topics_total", _C, "Topics that history forgot because there were too many."
        ),
        # decoders
        Description("gateway_decoded_total", _C, "Payloads that a rule made JSON of, by its formats.", ("decoder",)),
        Description(
            "gateway_decode_failed_total", _C, "Payloads that a rule could not read, by its formats.", ("decoder",)
        ),
        Description(
            "gateway_decode_unknown_aliases_total",
            _C,
            "Values of Sparkplug metrics whose alias no BIRTH explained.",
        ),
        # cluster
        Description("gateway_cluster_reachable", _G, "Whether the server with the shared log answers: 1 or 0."),
        Description("gateway_cluster_leading", _G, "Whether this node leads: 1 or 0."),
        Description("gateway_cluster_behind_messages", _G, "Messages of the shared log that this node had not yet."),
        Description("gateway_cluster_log_bytes", _G, "About what the entries of the shared log take on its server."),
        Description("gateway_cluster_waiting_bytes", _G, "Memory of what waits at the leader to be appended."),
        Description(
            "gateway_cluster_append_age_seconds", _G, "Time since this node, which leads, appended something last."
        ),
        Description(
            "gateway_cluster_revocations_shared",
            _G,
            "Whether tokens that are called back are told to other nodes, and heard of: 1 or 0.",
        ),
        Description(
            "gateway_cluster_revocations_untold",
            _G,
            "Tokens and subjects called back here that other nodes have yet to hear of.",
        ),
        # archive
        Description("gateway_archive_kept", _G, "Whether what arrives is kept in the archive: 1 or 0."),
        Description("gateway_archive_bytes", _G, "Bytes of the archive's file."),
        Description("gateway_archive_blocks_total", _C, "Blocks written."),
        Description("gateway_archive_block_bytes_total", _C, "Bytes of the blocks written, compressed."),
        Description("gateway_archive_messages_total", _C, "Messages written."),
        Description("gateway_archive_commits_total", _C, "Transactions written, each with a sync of the disk."),
        Description("gateway_archive_commit_seconds_total", _C, "Time that these took."),
        Description("gateway_archive_lag_seconds", _G, "How long what waits for the disk has been waiting."),
        Description("gateway_archive_waiting_bytes", _G, "Memory of what waits for the disk."),
        Description("gateway_archive_waiting_bytes_limit", _G, "The most memory of what waits for the disk."),
        Description("gateway_archive_dropped_total", _C, "Messages that were relayed and not kept."),
        Description("gateway_archive_failures_total", _C, "Attempts to write that failed, by reason.", ("reason",)),
        Description("gateway_archive_series", _G, "Numbers and texts of which the archive makes roll-ups."),
        Description("gateway_archive_series_limit", _G, "The most numbers and texts of which it makes any."),
        Description(
            "gateway_archive_left_out_total",
            _C,
            "Numbers and texts that came and are in no roll-up, since there are too many.",
        ),
        Description("gateway_archive_read_total", _C, "Messages read from the archive."),
        Description("gateway_archive_unreadable_total", _C, "Answers in which something could not be read."),
        # devices
        Description("gateway_devices", _G, "Devices that are known now."),
        Description("gateway_devices_limit", _G, "The most devices that are known at a time."),
        Description("gateway_devices_bytes", _G, "Bytes of what devices have announced of themselves."),
        Description("gateway_devices_bytes_limit", _G, "The most bytes of that."),
        Description(
            "gateway_announcements_read_total", _C, "How often something announced was read, by habit.", ("habit",)
        ),
        Description(
            "gateway_announcements_broken_total",
            _C,
            "Announcements, or parts of one, that could not be read, by habit.",
            ("habit",),
        ),
        Description("gateway_announcements_refused_total", _C, "What was announced and had no room."),
        # upstream
        # the alerts
        Description("gateway_alert_topics", _G, "Topics of an alert that are pending or firing.", ("alert", "state")),
        Description(
            "gateway_alert_changes_total", _C, "How often a topic of an alert came into a state.", ("alert", "state")
        ),
        Description(
            "gateway_alert_left_out_total",
            _C,
            "Messages that an alert left out since it knows as many topics as it may.",
            ("alert",),
        ),
        Description(
            "gateway_alert_missed_total",
            _C,
            "Messages that history had let go before an alert could look at them.",
            ("alert",),
        ),
        Description(
            "gateway_alert_publishes_total", _C, "States of alerts that were published, by result.", ("result",)
        ),
        Description(
            "gateway_webhook_notices_total",
            _C,
            "Notices to webhooks by result; `retried` are attempts that are made again.",
            ("webhook", "result"),
        ),
        Description("gateway_webhook_waiting", _G, "Notices that wait for a webhook.", ("webhook",)),
        Description("gateway_upstream_connected", _G, "Whether the broker is connected: 1 or 0."),
        Description("gateway_upstream_reconnects_total", _C, "How often the broker was connected again."),
        Description("gateway_upstream_attempts", _G, "Attempts to connect since the broker was last connected."),
        Description(
            "gateway_upstream_received_total", _C, "Messages that came from the broker, repeated ones included."
        ),
        Description(
            "gateway_upstream_dropped_total", _C, "Messages from the broker not taken, by reason.", ("reason",)
        ),
        Description("gateway_upstream_last_message_age_seconds", _G, "Time since a message came from the broker."),
        Description(
            "gateway_upstream_filters",
            _G,
            "Topic filters asked of the broker, by whether it granted them.",
            ("granted",),
        ),
    )
}


def _labelled(sample: Mapping[Any, float]) -> Iterator[tuple[tuple[str, ...], float]]:
    # a snapshot: a counter may gain a label while it is read only if another thread counts, and none does
    for key, value in sample.items():
        yield (key,) if isinstance(key, str) else key, value


def _family(row: Description, sample: Any) -> Metric:
    """What the client library wants of a sample."""
    labels = row.labels
    if row.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(row.name, row.help)
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(repr, sample.bounds), "+Inf"), sample.counts, strict=True):
            total += count
            buckets.append((bound, total))
        histogram.add_metric([], buckets, sample.sum)
        return histogram
    if row.kind is Kind.INFO:
        info = InfoMetricFamily(row.name.removesuffix("_info"), row.help)
        for key, _ in _labelled(sample):
            info.add_metric([], dict(zip(labels, key, strict=True)))
        return info
    kind = CounterMetricFamily if row.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(row.name, row.help, labels=labels)
    if isinstance(sample, Mapping):
        for key, value in _labelled(sample):
            family.add_metric(key, value)
    else:
        family.add_metric((), sample)
    return family


class Process(ProcessCollector):
    """The process by the client library's names, its open files counted without a list of them.

    That list takes 0.3 s of the loop with 100,000 connections. Linux has told the number since 6.2 (proc(5)); where the
    system doesn't, the library's own way is taken.
    """

    def collect(self) -> Iterable[Metric]:
        """Memory, processor time, start and files."""
        try:
            count = Path("/proc/self/fd").stat().st_size
            parts = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split() if count else []
        except OSError:
            count, parts = 0, []
        if not count:
            return super().collect()
        import resource  # not on Windows

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        gauges = {
            "virtual_memory_bytes": ("Virtual memory size in bytes.", float(parts[20])),
            "resident_memory_bytes": ("Resident memory size in bytes.", float(parts[21]) * resource.getpagesize()),
            "start_time_seconds": (
                "Start time of the process since unix epoch in seconds.",
                float(parts[19]) / self._ticks + self._btime,
            ),
            "max_fds": (
                "Maximum number of open file descriptors.",
                float(most),
            ),
            "open_fds": ("Number of open file descriptors.", float(count)),
        }
        used = CounterMetricFamily(
            "process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", value=time.process_time()
        )
        return [used, *(GaugeMetricFamily(f"process_{name}", text, value) for name, (text, value) in gauges.items())]


class Exporter(Collector):
    """Answers scrapes from what `read` returns at that moment, in the order of the table."""

    def __init__(self, read: Callable[[], Mapping[str, Sample]]) -> None:
        """`read` gives samples by name; a name that isn't in `METRICS` is a mistake and raises at the scrape."""
        self._read = read
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        # memory, processor time and open files of the process; Python's version
        Process(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def describe(self) -> list[Metric]:
        """Nothing: describing would read, and the parts may not be there yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The table's metrics, as far as they have samples."""
        samples = self._read()
        unknown = samples.keys() - METRICS.keys()
        if unknown:
            raise KeyError(f"not in the table of metrics: {', '.join(sorted(unknown))}")
        for name, row in METRICS.items():
            sample = samples.get(name)
            if sample is not None:
                yield _family(row, sample)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The answer to a scrape and its content type, in the form that the `Accept` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
