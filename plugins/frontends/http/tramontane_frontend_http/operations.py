# SPDX-License-Identifier: Apache-2.0
"""What operators ask: is it ready, how is it doing. ``/health`` answers 200 only while a model is ready."""

from __future__ import annotations

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tramontane.host import Host, ModelState
from tramontane.wire.errors import headers_of
from tramontane.wire.scope import may_administer
from tramontane_frontend_http.answers import JsonResponse, not_for_users
from tramontane_frontend_http.metrics import HostCollector, times


def routes(host: Host, registry: CollectorRegistry, *, metrics: bool) -> list[Route]:
    """``/health`` and, where wanted, ``/metrics``."""
    registry.register(HostCollector(host))

    async def health(request: Request) -> Response:
        cards = host.models()
        ready = any(card.state is ModelState.READY for card in cards)
        states = {card.name: card.state.value for card in cards}
        body, status = {"status": "ok" if ready else "not ready", "models": states}, 200 if ready else 503
        return JsonResponse(body, status, headers=headers_of(status))

    async def scrape(request: Request) -> Response:
        if not may_administer(request.scope):
            return not_for_users(request.scope)
        found = generate_latest(registry) + generate_latest(times().registry)
        return Response(found, media_type=CONTENT_TYPE_LATEST)

    found = [Route("/health", health)]
    return [*found, Route("/metrics", scrape)] if metrics else found
