# SPDX-License-Identifier: Apache-2.0
"""From what the options say about quantization to a request that a plan can be changed by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path

from tramontane.backends.base import Backend
from tramontane.errors import ConfigError, PlanError
from tramontane.load.options import LoadOptions
from tramontane.plugins import Plugins
from tramontane.quantization import Importances, Organization, Quantizer, Request, read_topology
from tramontane.quantization.encoders import quickened
from tramontane.records import resolve


def quantization_request(
    options: LoadOptions,
    plugins: Plugins,
    backend: Backend,
    stored: Collection[str],
    importances: Importances | None = None,
    forms: Mapping[str, str] | None = None,
) -> Request | None:
    """What to quantize to; ``None`` where nothing is asked for.

    Args:
        options: ``quant``, ``organization`` and ``topology`` count.
        plugins: Where types are looked up.
        backend: Answers which type a plain number means.
        stored: Names of the formats, and of their types, that the checkpoint is stored in.
        importances: See :class:`~tramontane.quantization.Request`.
        forms: Types that are wanted in another form: see :attr:`tramontane.records.WriterSpec.types`.

    Raises:
        UnknownNameError: There is no type of that name.
        PlanError: The name is that of a stored format, and the checkpoint is not stored so.
        ConfigError: The topology or the organization is wrong.
    """
    check_importances(options)
    if options.quant is None and options.topology is None:
        return None

    @cache
    def find(name: str) -> Quantizer:
        return find_quantizer(name, plugins, backend, forms or {})

    topology = None if options.topology is None else read_topology(Path(options.topology))
    default = None if options.quant is None else _default(options.quant, plugins, stored, find)
    try:
        organization = Organization(options.organization.lower())
    except ValueError:
        known = ", ".join(one.value for one in Organization)
        raise ConfigError(f"there is no organization {options.organization!r}", hint=f"known: {known}") from None
    return Request(
        default=default,
        find=find,
        organization=organization,
        topology=topology,
        importances=importances or {},
        place=lambda path: backend.at(path).device,
    )


def check_importances(options: LoadOptions) -> None:
    """Refuse importances that would count for nothing.

    Raises:
        ConfigError: Two sources of them are named, or nothing is to be quantized.
    """
    if options.imatrix is not None and options.calibrate is not None:
        raise ConfigError("importances come from a file (imatrix) or from a text (calibrate), not from both")
    if (options.imatrix or options.calibrate) and options.quant is None and options.topology is None:
        raise ConfigError("importances count only where weights are quantized", hint="say to which type with --quant")


def find_quantizer(name: str, plugins: Plugins, backend: Backend, forms: Mapping[str, str]) -> Quantizer:
    """A type by name in any case, or the one that the backend means by a plain number; in the form that is wanted.

    Raises:
        PlanError: The backend knows no type of that many bits.
        UnknownNameError: There is no type of that name.
    """
    wanted = name.strip().lower()
    if wanted.isdecimal():
        level = backend.isq_types.get(int(wanted))
        if level is None:
            known = ", ".join(map(str, sorted(backend.isq_types)))
            raise PlanError(f"backend {backend.name} has no type of {wanted} bits", hint=f"it has: {known}")
        wanted = level.name
    types = plugins.catalogs.quantizers
    spec = types.get(wanted)
    spec = types.get(forms.get(spec.name, spec.name))
    made: Quantizer = resolve(spec.make, spec)(spec.name)
    return quickened(made, plugins.catalogs.encoders)


def _default(
    name: str, plugins: Plugins, stored: Collection[str], find: Callable[[str], Quantizer]
) -> Quantizer | None:
    """The asked type; ``None`` where the name is that of the format in which the checkpoint is stored already."""
    wanted = name.strip().lower()
    if wanted in stored:
        return None
    if wanted not in plugins.catalogs.quantizers and wanted in plugins.catalogs.quant_formats:
        raise PlanError(
            f"the checkpoint is not stored in the format {wanted!r}, and loading cannot quantize to it",
            hint=f"types for that: {', '.join(plugins.catalogs.quantizers.names())}",
        )
    return find(name)
