# SPDX-License-Identifier: Apache-2.0
"""The one error tree.

Every error a user can meet descends from :class:`TramontaneError`. An error is for a person: its message says what
happened and with which names, its ``hint`` says what to do next. Programs tell errors apart by class (and by the
stable ``code`` that frontends send over the wire), never by text.
"""

from __future__ import annotations


class TramontaneError(Exception):
    """Base of all errors.

    Args:
        message: What happened, with the names involved. One sentence or a short list.
        hint: What the person can do next; printed on a line of its own.
    """

    #: Stable identifier for programs; frontends put it in their error envelopes.
    code: str = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}" if self.hint else self.message


# --- plugins ---------------------------------------------------------------------------------------------------------


class PluginError(TramontaneError):
    """A plugin could not be used: it failed to import, to validate or to register."""

    code = "plugin_failed"


class ConflictError(PluginError):
    """Two distributions claim the same name in a catalog."""

    code = "plugin_conflict"


class UnknownNameError(TramontaneError):
    """A look-up in a catalog missed: no architecture, format, backend, command ... of that name."""

    code = "unknown_name"


# --- configuration and input -----------------------------------------------------------------------------------------


class ConfigError(TramontaneError):
    """A configuration (ours or a checkpoint's) has missing, wrong or unsupported keys; all are named at once."""

    code = "invalid_config"


class RequestError(TramontaneError):
    """A request is not valid: wrong sampling parameters, an empty prompt, a prompt that cannot fit."""

    code = "invalid_request"


class PromptTooLongError(RequestError):
    """The prompt (or prompt plus requested tokens) is longer than the model or the cache can hold."""

    code = "prompt_too_long"


class GrammarError(RequestError):
    """A constraint on the output cannot be used: it is not valid, uses what is not supported, or passes a limit."""

    code = "invalid_grammar"


# --- finding and reading models --------------------------------------------------------------------------------------


class HubError(TramontaneError):
    """A model reference could not be resolved to local files."""

    code = "hub_error"


class ModelNotFoundError(HubError):
    """No such local folder and no such repository or revision on the hub."""

    code = "model_not_found"


class GatedModelError(HubError):
    """The repository exists but its owner asks people to accept terms first."""

    code = "model_gated"


class AuthenticationError(HubError):
    """The hub refused the token."""

    code = "hub_authentication"


class OfflineError(HubError):
    """The files are not in the local cache and the network is off or out of reach."""

    code = "offline"


class DiskFullError(HubError):
    """The disk has no room for the download."""

    code = "disk_full"


class CheckpointError(TramontaneError):
    """A checkpoint's files are damaged, hostile, or do not fit the model: every bad tensor is named in one message."""

    code = "invalid_checkpoint"


class UnsafeFormatError(CheckpointError):
    """The checkpoint stores its weights as pickle, which can run code; loading it must be asked for explicitly."""

    code = "unsafe_format"


# --- planning and running --------------------------------------------------------------------------------------------


class PlanError(TramontaneError):
    """A model cannot be built as asked: an unsupported feature, a shard boundary that cannot work, no kernel."""

    code = "plan_failed"


class OutOfMemoryError(PlanError):
    """Weights, activations and the smallest useful cache do not fit; the message carries the numbers."""

    code = "out_of_memory"


class CaptureRefused(TramontaneError):
    """A model's step cannot be recorded as a tape; the engine runs it eagerly and says so once, with this reason."""

    code = "capture_refused"


class EngineClosedError(TramontaneError):
    """The engine was shut down while, or before, the call was made."""

    code = "engine_closed"


class EngineError(TramontaneError):
    """A step failed. The requests of that step end with this error; the engine goes on with the others."""

    code = "engine_failed"
