# SPDX-License-Identifier: Apache-2.0
"""What Prometheus reads: models' counters, times of requests to models, and the traffic of the port.

Times come from the observer hook ``request_finished``, which is told by whichever thread read the answer; they belong
to the process and not to one application.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from functools import cache, partial

from attrs import define, field
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tramontane.host import Host
from tramontane.records import RequestSummary
from tramontane.wire.scope import path_below_root

COUNTERS = frozenset({
    "evictions", "prefix_queries", "prefix_hits", "preemptions", "steps", "prompt_tokens", "sampled_tokens",
    "requests", "failed_steps",
})  # fmt: skip
"""Fields of a model's statistics that only grow; the others are gauges."""
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_WHOLE = (0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480)


class HostCollector(Collector):
    """Reads the host's models when Prometheus scrapes."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def collect(self) -> Iterator[Metric]:
        """One family per statistic, one sample per model."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for model, reading in self.host.metrics().items():
            for name, value in reading.items():
                made = CounterMetricFamily if name in COUNTERS else GaugeMetricFamily
                family = families.get(name)
                if family is None:
                    family = families[name] = made(f"tramontane_{name}", name.replace("_", " "), labels=["model"])
                family.add_metric([model], value)
        yield from families.values()


class Times:
    """How long requests to models took; ``registry`` holds it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        histogram = partial(Histogram, labelnames=["model"], registry=self.registry)
        self.first = histogram(
            "tramontane_time_to_first_token_seconds", "From arrival to the first token", buckets=_FIRST
        )
        self.between = histogram(
            "tramontane_inter_token_latency_seconds", "Mean time between tokens of a request", buckets=_BETWEEN
        )
        self.whole = histogram("tramontane_request_seconds", "From arrival to the last token", buckets=_WHOLE)
        self.ended = Counter(
            "tramontane_requests_finished", "Requests that have ended", ["model", "reason"], registry=self.registry
        )

    def note(self, request: RequestSummary) -> None:
        """Count a request that has ended."""
        self.ended.labels(request.model, request.finish_reason.value).inc()
        if request.completion_tokens:
            self.first.labels(request.model).observe(request.ttft_s)
        if request.completion_tokens > 1:
            between = (request.total_s - request.ttft_s) / (request.completion_tokens - 1)
            self.between.labels(request.model).observe(between)
        self.whole.labels(request.model).observe(request.total_s)


@cache
def times() -> Times:
    """The one of this process."""
    return Times()


@define(eq=False)
class Traffic:
    """Middleware: counts the port's requests by method, route and status.

    Routes are those of the OpenAPI document; every other path is ``other``, or strangers could make labels without end.
    """

    app: ASGIApp
    registry: CollectorRegistry
    paths: Iterable[str]
    _known: list[tuple[re.Pattern[str], str]] = field(init=False)
    _requests: Counter = field(init=False)
    _seconds: Histogram = field(init=False)
    _open: Gauge = field(init=False)

    def __attrs_post_init__(self) -> None:
        ordered = sorted(self.paths, key=lambda path: path.count("{"))
        self._known = [(re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), path) for path in ordered]
        registry = self.registry
        labels = ["method", "route", "status"]
        self._requests = Counter("tramontane_http_requests", "Requests answered", labels, registry=registry)
        self._seconds = Histogram(
            "tramontane_http_request_seconds", "From a request to the end of its answer", ["route"], registry=registry,
            buckets=_WHOLE,
        )  # fmt: skip
        self._open = Gauge("tramontane_http_requests_open", "Requests being answered", registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, begun = 499, time.monotonic()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._open.inc()
        try:
            await self.app(scope, receive, watched)
        finally:
            self._open.dec()
            route, method = self._route(path_below_root(scope)), scope["method"]
            known = method if method in ("GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS") else "other"
            self._requests.labels(known, route, str(status)).inc()
            self._seconds.labels(route).observe(time.monotonic() - begun)

    def _route(self, path: str) -> str:
        return next((name for pattern, name in self._known if pattern.fullmatch(path)), "other")
