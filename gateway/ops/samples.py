"""What there is to measure of a running gateway, by the names of `metrics.METRICS`.

Invariant: reading changes nothing, so that it may be done at any moment. How samples are written is `metrics`'.
"""

from __future__ import annotations

import time

from gateway import __version__
from gateway.alerts.machine import State
from gateway.ops.metrics import Sample
from gateway.runtime import Gateway

__all__ = ["samples"]


def samples(gateway: Gateway) -> dict[str, Sample]:
    """The samples as of now."""
    hub, history, upstream = gateway.hub, gateway.history, gateway.arriving.state
    counted = hub.counters
    granted = sum(isinstance(qos, int) for qos in upstream.filters.values())
    age = None if upstream.last_message_at is None else max(0.0, time.time() - upstream.last_message_at)
    return {
        **_archive_samples(gateway),
        **_cluster_samples(gateway),
        **_alert_samples(gateway),
        **_decoding_samples(gateway),
        "gateway_info": {(__version__, history.epoch): 1},
        "gateway_messages_received_total": counted.received,
        "gateway_messages_repeated_total": history.repeated,
        "gateway_messages_delivered_total": counted.delivered,
        "gateway_messages_replayed_total": counted.replayed,
        "gateway_messages_skipped_total": counted.skipped,
        "gateway_messages_beyond_where_total": counted.too_large_for_where,
        "gateway_messages_lost_total": dict(counted.lost),
        "gateway_gaps_total": dict(counted.gaps),
        "gateway_delivery_delay_seconds": counted.delays,
        "gateway_loop_stall_seconds": gateway.stalls,
        "gateway_flushes_total": counted.flushes,
        "gateway_flush_seconds_total": counted.flush_seconds,
        "gateway_flush_writes_total": counted.batches,
        "gateway_flush_bytes_total": counted.bytes_written,
        "gateway_subscribers": hub.subscriber_count,
        "gateway_groups": hub.group_count,
        "gateway_subscribers_slow": hub.paused_count,
        "gateway_subscribers_slowed_total": counted.slow,
        "gateway_subscribers_closed_slow_total": counted.closed_slow,
        "gateway_shapes_shed_total": counted.shapes_shed,
        "gateway_buffer_bytes": gateway.unsent_bytes,
        "gateway_connections": gateway.connections.total,
        "gateway_requests": gateway.guard.requests.total,
        "gateway_connections_limit": gateway.connections.max_total,
        "gateway_tls_expiry_timestamp_seconds": gateway.certificate.expires_at if gateway.certificate else None,
        "gateway_refused_total": dict(gateway.refusals.by_reason),
        "gateway_authentications_total": dict(gateway.guard.authentications),
        "gateway_revocations": None if gateway.guard.verifier is None else len(gateway.guard.revocations),
        "gateway_publishes_total": dict(gateway.published),
        "gateway_history_messages": history.message_count,
        "gateway_history_topics": history.topic_count,
        "gateway_history_topics_limit": history.max_topics,
        "gateway_history_bytes": history.bytes,
        "gateway_history_bytes_limit": history.max_bytes,
        "gateway_history_evicted_total": history.evicted,
        "gateway_history_dropped_topics_total": history.dropped_topics,
        "gateway_devices": gateway.devices.count,
        "gateway_devices_limit": gateway.devices.max_devices,
        "gateway_devices_bytes": gateway.devices.bytes,
        "gateway_devices_bytes_limit": gateway.devices.max_bytes,
        "gateway_announcements_read_total": dict(gateway.devices.read),
        "gateway_announcements_broken_total": dict(gateway.devices.broken),
        "gateway_announcements_refused_total": gateway.devices.refused,
        "gateway_upstream_connected": float(gateway.is_connected),
        "gateway_upstream_reconnects_total": upstream.reconnects,
        "gateway_upstream_attempts": upstream.attempts,
        "gateway_upstream_received_total": upstream.received,
        "gateway_upstream_dropped_total": dict(upstream.dropped),
        "gateway_upstream_last_message_age_seconds": age,
        "gateway_upstream_filters": {"yes": granted, "no": len(upstream.filters) - granted},
    }


def _alert_samples(gateway: Gateway) -> dict[str, Sample]:
    if (runner := gateway.alerts) is None:
        return {}
    machines = {name: alert.machine for name, alert in runner.alerts.alerts.items()}
    return {
        "gateway_alert_topics": {
            (name, state.value): machine.counts[state]
            for name, machine in machines.items()
            for state in (State.PENDING, State.FIRING)
        },
        "gateway_alert_changes_total": {
            (name, state.value): count for name, machine in machines.items() for state, count in machine.changes.items()
        },
        "gateway_alert_left_out_total": {name: machine.left_out for name, machine in machines.items()},
        "gateway_alert_missed_total": {name: alert.missed for name, alert in runner.alerts.alerts.items()},
        "gateway_alert_publishes_total": dict(runner.published),
        "gateway_webhook_notices_total": None if runner.webhooks is None else dict(runner.webhooks.results),
        "gateway_webhook_waiting": None if runner.webhooks is None else runner.webhooks.waiting,
    }


def _decoding_samples(gateway: Gateway) -> dict[str, Sample]:
    counts = gateway.decoding.counts()
    if not counts:
        return {}
    return {
        "gateway_decoded_total": {name: decoded for name, (decoded, _) in counts.items()},
        "gateway_decode_failed_total": {name: failed for name, (_, failed) in counts.items()},
        "gateway_decode_unknown_aliases_total": gateway.decoding.unknown_aliases,
    }


def _cluster_samples(gateway: Gateway) -> dict[str, Sample]:
    if (cluster := gateway.cluster) is None:
        return {}
    member, leading = cluster.member, cluster.member.leading
    found: dict[str, Sample] = {
        "gateway_cluster_reachable": float(member.view is not None and member.trouble is None),
        "gateway_cluster_leading": float(leading is not None),
        "gateway_cluster_behind_messages": member.lag,
        "gateway_cluster_log_bytes": member.follower.extent.bytes,
    }
    if (recalls := gateway.recalls) is not None:
        found["gateway_cluster_revocations_shared"] = float(recalls.is_sharing)
        found["gateway_cluster_revocations_untold"] = recalls.untold
    if leading is not None:
        found["gateway_cluster_waiting_bytes"] = leading.waiting_bytes
        if leading.appended_at:
            age = (gateway.wall_clock_ms() - leading.appended_at) / 1000
            found["gateway_cluster_append_age_seconds"] = max(age, 0.0)
    return found


def _archive_samples(gateway: Gateway) -> dict[str, Sample]:
    if not gateway.has_archive:
        return {}
    found: dict[str, Sample] = {"gateway_archive_kept": float(gateway.archive_trouble is None)}
    if (archive := gateway.archive) is None:
        return found
    writer, reader, counted = archive.writer, archive.reader, archive.counters
    return {
        **found,
        "gateway_archive_bytes": archive.size,
        "gateway_archive_blocks_total": counted.blocks,
        "gateway_archive_block_bytes_total": counted.bytes,
        "gateway_archive_messages_total": counted.messages,
        "gateway_archive_commits_total": counted.commits,
        "gateway_archive_commit_seconds_total": counted.commit_seconds,
        "gateway_archive_lag_seconds": writer.lag_seconds,
        "gateway_archive_waiting_bytes": writer.waiting_bytes,
        "gateway_archive_waiting_bytes_limit": writer.max_bytes,
        "gateway_archive_dropped_total": counted.dropped,
        "gateway_archive_failures_total": {reason: count for reason, count in counted.failures.items() if count},
        "gateway_archive_series": archive.rollups.series_count,
        "gateway_archive_series_limit": archive.rollups.max_series,
        "gateway_archive_left_out_total": archive.rollups.left_out,
        "gateway_archive_read_total": reader.messages,
        "gateway_archive_unreadable_total": reader.failures,
    }
