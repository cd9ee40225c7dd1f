# SPDX-License-Identifier: Apache-2.0
"""What a saved model says about itself: for each matrix its scheme, as JSON in the files' metadata.

``{"version": 1, "schemes": [{"kind": "affine", "bits": 4, ...}, ...], "parts": {"model.layers.0.mlp.up_proj": 0}}``
under the key ``tramontane``. A matrix that is not listed is plain floating point. Tensors are named after the model's
modules and the schemes' fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from attrs import field, frozen

from tramontane.errors import CheckpointError, PlanError
from tramontane.schemes import Act, Affine, Codebook, Float8, Ggml, Micro, Scheme
from tramontane.schemes.ggml import CODECS

KEY = "tramontane"
"""The metadata's key."""
VERSION = 1

_KINDS: Mapping[str, type[Scheme]] = {
    "affine": Affine,
    "codebook": Codebook,
    "float8": Float8,
    "ggml": Ggml,
    "micro": Micro,
}
_NAMES = {cls: kind for kind, cls in _KINDS.items()}


@frozen
class Description:
    """Which module is stored in which scheme."""

    parts: Mapping[str, Scheme] = field(factory=dict)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Description | None:
        """What the metadata of weight files says; ``None`` where the model was not saved by this project.

        Raises:
            CheckpointError: It is damaged, or of a later version.
        """
        text = metadata.get(KEY)
        if text is None:
            return None
        try:
            content = json.loads(text)
            if content["version"] != VERSION:
                raise CheckpointError(
                    f"the model was saved in version {content['version']!r:.20} of the form; this reads {VERSION}",
                    hint="upgrade tramontane",
                )
            schemes = [_scheme(one) for one in content["schemes"]]
            return cls({str(path): schemes[index] for path, index in content["parts"].items()})
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, PlanError) as error:
            raise CheckpointError(f"the saved model's description of itself is damaged: {error!r:.200}") from error

    def text(self) -> str:
        """The inverse of :meth:`of`."""
        schemes = list(dict.fromkeys(self.parts.values()))
        content = {
            "version": VERSION,
            "schemes": [_content(one) for one in schemes],
            "parts": {path: schemes.index(scheme) for path, scheme in self.parts.items()},
        }
        return json.dumps(content, separators=(",", ":"))


def encoding_of(scheme: Scheme) -> str:
    """Name of a block type that a plugin brings. Its tensors say that themselves (:attr:`TensorRef.encoding`), and the
    plugin's format reads them. Empty for schemes that are described here."""
    return scheme.type.name if isinstance(scheme, Ggml) and scheme.type.name not in CODECS else ""


def _content(scheme: Scheme) -> dict[str, Any]:
    kind = _NAMES.get(type(scheme))
    if kind is None or encoding_of(scheme):
        raise PlanError(
            f"weights in {scheme.name} cannot be saved in this form", hint="quantize to another type, or write GGUF"
        )
    found: dict[str, Any] = {"kind": kind}
    for one in attrs.fields(type(scheme)):
        value = getattr(scheme, one.name)
        if isinstance(value, torch.dtype):
            value = str(value).removeprefix("torch.")
        elif isinstance(value, Act):
            value = attrs.asdict(value)
        elif isinstance(scheme, Ggml) and one.name == "type":
            value = scheme.type.name
        found[one.name] = value
    return found


def _scheme(content: Mapping[str, Any]) -> Scheme:
    values = dict(content)
    cls = _KINDS[values.pop("kind")]
    values["act"] = Act(**values["act"])
    if "scale_dtype" in values:
        dtype = getattr(torch, values["scale_dtype"])
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"{values['scale_dtype']!r} is no element type")
        values["scale_dtype"] = dtype
    if values.get("block") is not None and cls is Float8:
        rows, columns = values["block"]
        values["block"] = (rows, columns)
    return cls(**values)
