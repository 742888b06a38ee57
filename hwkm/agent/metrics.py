"""The agent's figures as Prometheus reads them. No label tells of a volume or of its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from hwkm import __version__
from hwkm.agent.latency import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from hwkm.agent.latency import Latency
    from hwkm.agent.messages import Figures
    from hwkm.agent.status import Status
    from hwkm.token.pin_guard import GuardState

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics(Collector):
    """Turns what the agent counts into metrics, each time that it is asked to.

    ``figures`` are None while there are none; ``guard`` says what is remembered of PINs, or None.
    """

    def __init__(self, status: Status, guard: Callable[[], GuardState | None]) -> None:
        self.figures: Figures | None = None
        self.counted_at: float | None = None
        self._status = status
        self._guard = guard
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def counted(self, found: Figures) -> None:
        """Take on what was counted in the keystore."""
        self.figures = found
        self._status.last_backup = found.last_backup

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Return nothing: no names are claimed in advance."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield every metric there is now."""
        yield from self._agent()
        yield from self._requests()
        yield from self._token()
        if (guard := self._guard()) is not None:
            yield _gauge(
                "hwkm_pin_guard_refused_pins", "PINs that are not tried again", guard.refused
            )
            yield _gauge(
                "hwkm_pin_guard_unfinished_logins",
                "Logins that were begun and have not ended",
                guard.unfinished,
            )
        yield from self._keystore()

    def _agent(self) -> Iterator[Metric]:
        status = self._status
        yield InfoMetricFamily("hwkm_agent", "The agent", {"version": __version__})
        started = "When the agent was started, in seconds since 1970"
        yield _gauge("hwkm_agent_start_time_seconds", started, status.started_at)
        yield _gauge("hwkm_agent_connections", "Clients connected now", status.connections)
        yield _counter(
            "hwkm_agent_refused_connections", "Clients not let in", status.refused_connections
        )
        yield _gauge("hwkm_agent_drive_jobs", "Drives worked on now for keys", status.drive_jobs)
        verb_jobs = status.verb_jobs.total()
        yield _gauge("hwkm_agent_drive_verbs", "Drives worked on now for hwkm drive", verb_jobs)
        reloads = CounterMetricFamily(
            "hwkm_agent_config_reloads", "Configurations read again", labels=["outcome"]
        )
        reloads.add_metric(["taken on"], status.reloads)
        reloads.add_metric(["refused"], status.refused_reloads)
        yield reloads

    def _requests(self) -> Iterator[Metric]:
        status = self._status
        yield _gauge("hwkm_agent_requests_in_flight", "Requests worked on now", status.in_flight)
        requests = CounterMetricFamily(
            "hwkm_agent_requests",
            "Requests answered; operation is that of getkey, or what hwkm drive does",
            labels=["verb", "operation", "outcome"],
        )
        for (verb, operation, outcome), number in sorted(status.requests.items()):
            requests.add_metric([verb, operation, outcome], number)
        yield requests
        seconds = HistogramMetricFamily(
            "hwkm_agent_getkey_seconds",
            "From a whole request for a key to its answer",
            labels=["operation", "outcome"],
        )
        for labels, latency in sorted(status.latencies.items()):
            _add(seconds, labels, latency)
        yield seconds

    def _token(self) -> Iterator[Metric]:
        token = self._status.token
        yield _gauge(
            "hwkm_token_process_up",
            "Whether there is a process that owns the token",
            bool(token.pid),
        )
        yield _counter("hwkm_token_process_starts", "How often it was started", token.starts)
        yield _counter("hwkm_token_process_failures", "How often it failed", token.failures)
        yield _counter(
            "hwkm_token_logins", "How often a token was opened, or that was tried", token.logins
        )
        seconds = HistogramMetricFamily(
            "hwkm_token_seconds", "How long one request used tokens, logging in included", labels=[]
        )
        _add(seconds, (), token.latency)
        yield seconds

    def _keystore(self) -> Iterator[Metric]:
        if self.counted_at is None:
            return
        found = self.figures
        yield _gauge("hwkm_keystore_up", "Whether the keystore could be read", found is not None)
        counted = "When the keystore was counted, in seconds since 1970"
        yield _gauge("hwkm_keystore_counted_time_seconds", counted, self.counted_at)
        if found is None:
            return
        yield _gauge("hwkm_keystore_size_bytes", "What the keystore takes", found.size)
        yield _gauge("hwkm_keystore_volumes", "Volumes on record", found.volumes)
        yield _gauge("hwkm_keystore_keys", "Volume keys on record", found.keys)
        yield _gauge(
            "hwkm_keystore_single_recipient_volumes",
            "Volumes whose active key only one master key can open",
            found.volumes_with_one_recipient,
        )
        if found.last_backup is not None:
            backup = "When the keystore was last backed up, in seconds since 1970"
            yield _gauge("hwkm_last_backup_timestamp_seconds", backup, found.last_backup)
        envelopes = GaugeMetricFamily(
            "hwkm_keystore_envelopes",
            "Envelopes that a master key can open, by its token and label",
            labels=["token", "master"],
        )
        for one in found.envelopes:
            envelopes.add_metric([one.token, one.master], one.number)
        yield envelopes


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], latency: Latency) -> None:
    bounds = [*(str(bound) for bound in BOUNDS), "+Inf"]
    buckets = list(zip(bounds, map(float, latency.cumulative()), strict=True))
    family.add_metric(list(labels), buckets, latency.total)
