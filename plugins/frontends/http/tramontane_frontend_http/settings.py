# SPDX-License-Identifier: Apache-2.0
"""How the server listens, whom it lets in, and how much it takes on. One frozen record, validated when made."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

from attrs import field, frozen

from tramontane.errors import ConfigError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
"""Host names by which a loopback server may be addressed unless others are allowed."""


@frozen(kw_only=True)
class ServerSettings:
    """Settings of one server.

    Raises:
        ConfigError: They contradict each other, or would open the server to everybody unasked.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes any free port."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Without keys everybody who reaches the port may use it."""
    admin_keys: tuple[str, ...] = field(default=(), repr=False)
    """With any, only these load, unload and requantize models and read metrics and plugins; they open everything else
    too. Without, whoever may ask a model may do that as well."""
    insecure: bool = False
    """Listen beyond this machine without a key."""
    allowed_hosts: tuple[str, ...] = ()
    """Names in the Host header that are served; empty: the loopback names, or any where a key guards a public bind."""
    cors_origins: tuple[str, ...] = ()
    """Web pages that may call from a browser; ``*`` for all. The server's own pages always may."""
    max_body_bytes: int = 50 * 2**20
    max_concurrent: int = 512
    """Requests that may be open at a time; one more is answered 429 with Retry-After."""
    max_queue: int | None = None
    """Requests that may wait for their turn at the models; one more is answered 429 with Retry-After."""
    requests_per_minute: int | None = None
    """Per key (or per address where there are no keys)."""
    request_timeout: float | None = 600.0
    """Seconds until the first byte of an answer; then 504."""
    body_timeout: float | None = 30.0
    """Seconds between two pieces of a request's body; then 408."""
    header_timeout: float = 15.0
    """Seconds until a connection has sent the head of a request; then it is closed."""
    separate_keys: bool = False
    """Each API key sees only what was stored with it, and shares no cached beginnings with others, whose times could
    tell what they send."""
    adapter_folders: tuple[Path, ...] = ()
    """What lies in them may be loaded as an adapter over HTTP; nothing else may."""
    drain_seconds: float = 30.0
    """How long open answers may take to end once the server is asked to stop."""
    access_log: bool = True
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    metrics: bool = True

    def __attrs_post_init__(self) -> None:
        wrong = list(self._faults())
        if wrong:
            raise ConfigError("the server cannot run like this: " + "; ".join(wrong), hint=self._hint())

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def served_hosts(self) -> tuple[str, ...] | None:
        """Names in the Host header that are served; ``None`` for any."""
        if self.allowed_hosts:
            return self.allowed_hosts
        return LOOPBACK_NAMES if self.is_loopback else None

    def _open_to_all(self) -> bool:
        return not self.is_loopback and not self.api_keys and not self.insecure

    def _hint(self) -> str | None:
        if self._open_to_all():
            return "give a key with --api-key-file or TRAMONTANE_API_KEY, or say --insecure if the network is trusted"
        return None

    def _faults(self) -> Iterator[str]:
        if self._open_to_all():
            yield f"it would listen on {self.host} for everybody, without a key"
        if not 0 <= self.port <= 65535:
            yield f"port must be from 0 to 65535, got {self.port}"
        if any(not key.strip() or not key.isascii() for key in (*self.api_keys, *self.admin_keys)):
            yield "an API key is empty or not ASCII"
        if not set(self.api_keys).isdisjoint(self.admin_keys):
            yield "an admin key is among the API keys too, which would make every user an admin"
        for name in ("max_body_bytes", "max_concurrent"):
            if getattr(self, name) < 1:
                yield f"{name} must be above 0, got {getattr(self, name)}"
        for name in ("max_queue", "requests_per_minute"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                yield f"{name} must be above 0, got {getattr(self, name)}"
        for name in ("request_timeout", "body_timeout", "header_timeout"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                yield f"{name} must be above 0, got {getattr(self, name)}"
        if (self.tls_certificate is None) != (self.tls_key is None):
            yield "TLS needs both a certificate and a key file"
