# SPDX-License-Identifier: Apache-2.0
"""The one error tree.

Every error a user can meet descends from :class:`TramontaneError`. An error is for a person: its message says what
happened and with which names, its ``hint`` says what to do next. Programs tell errors apart by class (and by the
stable ``code`` that frontends send over the wire), never by text. The second paragraph of a class says what to do; with
the first it is that class's part of ``docs/errors.md``.
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
    """A plugin could not be used: it failed to import, to validate or to register.

    Update or uninstall the plugin; ``tramontane plugins`` says what happened to each, ``TRAMONTANE_PLUGINS_OFF``
    leaves one out.
    """

    code = "plugin_failed"


class ConflictError(PluginError):
    """Two distributions claim the same name in a catalog.

    Uninstall one of them, or say which is meant with ``TRAMONTANE_PREFER``.
    """

    code = "plugin_conflict"


class UnknownNameError(TramontaneError):
    """A look-up in a catalog missed: no architecture, format, backend, command ... of that name.

    Look at the near misses in the message; where a plugin is missing it gives the ``pip install`` line.
    """

    code = "unknown_name"


# --- configuration and input -----------------------------------------------------------------------------------------


class ConfigError(TramontaneError):
    """A configuration (ours or a checkpoint's) has missing, wrong or unsupported keys; all are named at once.

    Correct the keys that the message names; ``tramontane config --show`` says where a value came from.
    """

    code = "invalid_config"


class RequestError(TramontaneError):
    """A request is not valid: wrong sampling parameters, an empty prompt, a prompt that cannot fit.

    Correct the request; nothing ran, and the engine goes on. Where one parameter is at fault, ``param`` is its name.
    """

    code = "invalid_request"

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class ModalityError(RequestError):
    """A prompt holds an image, sound or a video, and the model does not take it.

    Send text alone, or choose a model that takes what you want to show it.
    """

    code = "unsupported_modality"


class PromptTooLongError(RequestError):
    """The prompt (or prompt plus requested tokens) is longer than the model or the cache can hold.

    Shorten the prompt, or give the model more room with ``--max-model-len`` or ``--kv-memory``.
    """

    code = "prompt_too_long"


class GrammarError(RequestError):
    """A constraint on the output cannot be used: it is not valid, uses what is not supported, or passes a limit.

    Change the keyword or the rule that the message names; ``docs/structured-output.md`` lists what is supported.
    """

    code = "invalid_grammar"


# --- finding and reading models --------------------------------------------------------------------------------------


class HubError(TramontaneError):
    """A model reference could not be resolved to local files.

    Read the reason in the message; a local folder needs no hub.
    """

    code = "hub_error"


class ModelNotFoundError(HubError):
    """No such local folder and no such repository or revision on the hub.

    Check the spelling of the path or of ``owner/name``; a private repository needs a token (``tramontane login``).
    """

    code = "model_not_found"


class GatedModelError(HubError):
    """The repository exists but its owner asks people to accept terms first.

    Accept the terms on the page of the model, then ``tramontane login`` with a token of the same account.
    """

    code = "model_gated"


class AuthenticationError(HubError):
    """The hub refused the token.

    ``tramontane login`` with a new token, or ``--token-source none`` for public models.
    """

    code = "hub_authentication"


class OfflineError(HubError):
    """The files are not in the local cache and the network is off or out of reach.

    Check the network, a proxy or ``HF_ENDPOINT``; ``tramontane pull`` fetches a model ahead of time.
    """

    code = "offline"


class DiskFullError(HubError):
    """The disk has no room for the download.

    Make room (``tramontane cache list``), or set ``HF_HOME`` to a folder on another disk.
    """

    code = "disk_full"


class CheckpointError(TramontaneError):
    """A checkpoint's files are damaged, hostile, or do not fit the model: every bad tensor is named in one message.

    Download the files again, or choose the architecture that they are for with ``--arch``; ``tramontane inspect`` shows
    what they hold.
    """

    code = "invalid_checkpoint"


class UnsafeFormatError(CheckpointError):
    """The checkpoint stores its weights as pickle, which can run code; loading it must be asked for explicitly.

    Look for a version with safetensors, or pass ``--allow-pickle`` if you trust whoever made the file.
    """

    code = "unsafe_format"


class AdapterError(CheckpointError):
    """An adapter's files are damaged or hostile, or it does not fit the model: every module that does not is named.

    Load it beside the model that it was trained on; ``docs/adapters.md`` says what is supported.
    """

    code = "invalid_adapter"


# --- planning and running --------------------------------------------------------------------------------------------


class PlanError(TramontaneError):
    """A model cannot be built as asked: an unsupported feature, a shard boundary that cannot work, no kernel.

    Change the option that the message names; ``tramontane doctor`` says what this machine can run.
    """

    code = "plan_failed"


class OutOfMemoryError(PlanError):
    """Weights, activations and the smallest useful cache do not fit; the message carries the numbers.

    Take a smaller type (``tramontane tune`` lists those that fit), a shorter ``--max-model-len``, or a smaller model.
    """

    code = "out_of_memory"


class CaptureRefused(TramontaneError):
    """A model's step cannot be recorded as a tape; the engine runs it eagerly and says so once, with this reason.

    Nothing, unless capture was insisted on: leave ``--capture`` out.
    """

    code = "capture_refused"


class EngineClosedError(TramontaneError):
    """The engine was shut down while, or before, the call was made.

    Load the model again; a program that closes an engine should let its requests end first.
    """

    code = "engine_closed"


class EngineError(TramontaneError):
    """A step failed. The requests of that step end with this error; the engine goes on with the others.

    Send the request again; if it fails again, report it with the message and the output of ``tramontane doctor``.
    """

    code = "engine_failed"


class EngineDiedError(EngineError):
    """The process in which a model's engine ran has ended by itself: it crashed, or something killed it.

    Send the request again: a server has started the model anew. If it was killed (SIGKILL), memory was probably short:
    take a smaller type or less ``--kv-memory``. ``tramontane serve --in-process`` does without the process.
    """

    code = "engine_died"
