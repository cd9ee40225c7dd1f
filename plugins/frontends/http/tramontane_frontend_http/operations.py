# SPDX-License-Identifier: Apache-2.0
"""What operators ask: is it ready, how is it doing. ``/health`` answers 200 only while a model is ready."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tramontane.host import Host, ModelState
from tramontane_frontend_http.answers import JsonResponse

COUNTERS = frozenset({
    "evictions", "prefix_queries", "prefix_hits", "preemptions", "steps", "prompt_tokens", "sampled_tokens",
    "requests", "finished", "aborted", "failed",
})  # fmt: skip
"""Fields of a model's statistics that only grow; the others are gauges."""


class HostCollector:
    """Reads the host's models when Prometheus scrapes."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def collect(self) -> Iterator[Metric]:
        """One family per statistic, one sample per model."""
        families: dict[str, Metric] = {}
        for model, reading in self.host.metrics().items():
            for name, value in reading.items():
                made = CounterMetricFamily if name in COUNTERS else GaugeMetricFamily
                family = families.get(name)
                if family is None:
                    family = families[name] = made(f"tramontane_{name}", name.replace("_", " "), labels=["model"])
                family.add_metric([model], value)  # type: ignore[attr-defined]
        yield from families.values()


def routes(host: Host, *, metrics: bool) -> list[Route]:
    """``/health`` and, where wanted, ``/metrics``."""
    registry = CollectorRegistry()
    registry.register(HostCollector(host))  # type: ignore[arg-type]

    async def health(request: Request) -> Response:
        cards = host.models()
        ready = any(card.state is ModelState.READY for card in cards)
        states = {card.name: card.state.value for card in cards}
        return JsonResponse({"status": "ok" if ready else "not ready", "models": states}, 200 if ready else 503)

    async def scrape(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    found = [Route("/health", health)]
    return [*found, Route("/metrics", scrape)] if metrics else found
