# SPDX-License-Identifier: Apache-2.0
"""What the hub's client raises, as this project's errors: one message and one next step for each cause."""

from __future__ import annotations

import errno

from attrs import frozen
from huggingface_hub import errors as hub_errors

from tramontane.errors import (
    AuthenticationError,
    DiskFullError,
    GatedModelError,
    HubError,
    ModelNotFoundError,
    OfflineError,
)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@frozen
class Request:
    """What was asked for, for messages."""

    repository: str
    revision: str
    endpoint: str
    has_token: bool

    @property
    def name(self) -> str:
        """Repository, with the revision where it is not the usual one."""
        return self.repository if self.revision == "main" else f"{self.repository} at revision {self.revision!r}"


def translate(error: BaseException, request: Request) -> HubError:
    """The error of this project for whatever the client raised."""
    if isinstance(error, HubError):
        return error
    if isinstance(error, hub_errors.GatedRepoError):
        return GatedModelError(
            f"{request.repository} is gated: its owner asks people to accept terms before they download it",
            hint=f"accept them at {request.endpoint}/{request.repository}, then run `tramontane login` "
            "or set HF_TOKEN to a token of the same account",
        )
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return ModelNotFoundError(
            f"{request.repository} exists but has no revision {request.revision!r}",
            hint=f"see its branches and tags at {request.endpoint}/{request.repository}/tree/main",
        )
    if isinstance(error, hub_errors.RepositoryNotFoundError | hub_errors.HFValidationError):
        return not_found(request)
    if isinstance(error, hub_errors.HfHubHTTPError):
        return _http(error, request)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return DiskFullError(
            f"the disk became full while {request.name} was being downloaded",
            hint="make room, or set HF_HOME to a disk that has it; files that are complete are kept",
        )
    if is_unreachable(error):
        return OfflineError(
            f"{request.name} is not in the local cache, and {request.endpoint} cannot be reached ({_reason(error)})",
            hint="check the network, a proxy (HTTPS_PROXY) or HF_ENDPOINT; a local folder needs no network",
        )
    return HubError(f"{request.name} could not be downloaded: {_reason(error)}")


def not_found(request: Request) -> ModelNotFoundError:
    """There is neither a folder nor a repository of that name, or it is private."""
    private = "it may be private to other accounts" if request.has_token else "if it is private, a token is needed"
    return ModelNotFoundError(
        f"there is no local folder {request.repository!r} and no repository of that name at {request.endpoint}",
        hint=f"check the spelling (owner/name); {private}",
    )


def not_cached(request: Request) -> OfflineError:
    """The network is switched off and the cache has no copy."""
    return OfflineError(
        f"{request.name} is not in the local cache, and the network is switched off",
        hint="run once without --offline and HF_HUB_OFFLINE, or give a local folder",
    )


def is_unreachable(error: BaseException) -> bool:
    """Whether the hub could not be asked at all.

    The client's HTTP library differs between its versions; all its transport errors descend from the ``HTTPError`` that
    the client builds its own errors on.
    """
    if isinstance(error, hub_errors.HfHubHTTPError):
        return False
    base = getattr(hub_errors, "HTTPError", ConnectionError)
    return isinstance(error, ConnectionError | TimeoutError | hub_errors.LocalEntryNotFoundError | base)


def _http(error: hub_errors.HfHubHTTPError, request: Request) -> HubError:
    status = error.response.status_code
    if status == 401:
        return AuthenticationError(
            f"{request.endpoint} refused the token that was sent for {request.repository}",
            hint="it may be mistyped, revoked or expired: run `tramontane login`, or use --token-source none",
        )
    if status == 403:
        return AuthenticationError(
            f"the token that was sent is not allowed to read {request.repository}",
            hint="give the token read access to this repository, or use one that has it",
        )
    if status == 429:
        return HubError(f"{request.endpoint} asks to slow down (status 429)", hint="wait a minute; a token helps too")
    return HubError(
        f"{request.endpoint} answered with status {status} for {request.name}", hint="try again in a minute"
    )


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
