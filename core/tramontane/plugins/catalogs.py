# SPDX-License-Identifier: Apache-2.0
"""The frozen catalogs: what all plugins together offer, by kind and by key.

A key that several plugins claim is an error of that key's look-up and of nothing else; ``TRAMONTANE_PREFER`` decides
it. A look-up that misses says what is near, which plugins failed, and what to install.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from attrs import frozen

from tramontane import records as r
from tramontane.errors import ConflictError, UnknownNameError
from tramontane.plugins.known import distribution_of
from tramontane.plugins.report import PluginReport, Status
from tramontane.plugins.settings import PREFER, PluginId

S = TypeVar("S", bound=r.Record)

#: Every registration hook, without its prefix, and the record it returns. The names are those of the catalogs too.
KINDS: Mapping[str, type[r.Record]] = {
    "loaders": r.LoaderSpec,
    "writers": r.WriterSpec,
    "architectures": r.ArchitectureSpec,
    "quant_formats": r.QuantFormatSpec,
    "quantizers": r.QuantizerSpec,
    "encoders": r.EncoderSpec,
    "importances": r.ImportanceSpec,
    "backends": r.BackendSpec,
    "kernels": r.KernelSpec,
    "adapters": r.AdapterSpec,
    "tokenizers": r.TokenizerSpec,
    "processors": r.ProcessorSpec,
    "pipelines": r.PipelineSpec,
    "proposers": r.ProposerSpec,
    "executors": r.ExecutorSpec,
    "tool_providers": r.ToolProviderSpec,
    "chat_formats": r.ChatFormatSpec,
    "logits_processors": r.LogitsProcessorSpec,
    "frontends": r.FrontendSpec,
    "commands": r.CommandSpec,
    "health_checks": r.HealthCheck,
}


@frozen
class Entry(Generic[S]):
    """A record and who registered it."""

    record: S
    owner: PluginId


@frozen
class Conflict:
    """A key that several plugins claim and nobody decided."""

    kind: str
    key: str
    owners: tuple[PluginId, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.key!r} is claimed by " + " and by ".join(owner.label for owner in self.owners)

    @property
    def remedy(self) -> str:
        """What to do about it."""
        names = " or ".join(f"{PREFER}={owner.distribution or owner.name}" for owner in self.owners)
        return f"uninstall one of them, or decide with {names}"


@frozen
class Catalog(Generic[S]):
    """All records of one kind. Iterating gives them by priority, then by name, without undecided conflicts."""

    kind: str
    _entries: tuple[Entry[S], ...]
    _by_key: Mapping[str, tuple[Entry[S], ...]]
    _reports: tuple[PluginReport, ...]

    @classmethod
    def build(
        cls, kind: str, entries: Iterable[Entry[S]], reports: Iterable[PluginReport], prefer: tuple[str, ...]
    ) -> Catalog[S]:
        """Index ``entries`` by each of their keys and let ``prefer`` decide what it can."""
        ordered = tuple(sorted(entries, key=lambda e: (-getattr(e.record, "priority", 0), e.record.name)))
        claims: dict[str, list[Entry[S]]] = {}
        for entry in ordered:
            for key in entry.record.keys:
                claims.setdefault(key, []).append(entry)
        decided = {key: _decide(claimants, prefer) for key, claimants in claims.items()}
        return cls(kind, ordered, decided, tuple(reports))

    def get(self, key: str) -> S:
        """The record of that name, class, type or dialect.

        Raises:
            ConflictError: Several plugins claim the key.
            UnknownNameError: Nobody has it; names near misses, plugins that failed and what to install.
        """
        found = self.find(key)
        if found is None:
            raise self._miss(key)
        return found

    def find(self, key: str) -> S | None:
        """Like :meth:`get`, but None where nobody has the key."""
        claimants = self._by_key.get(key, ())
        if len(claimants) > 1:
            conflict = self._conflict(key)
            raise ConflictError(str(conflict), hint=conflict.remedy)
        return claimants[0].record if claimants else None

    def owner(self, key: str) -> PluginId | None:
        """Who registered what :meth:`get` returns; None where there is nothing, or a conflict."""
        claimants = self._by_key.get(key, ())
        return claimants[0].owner if len(claimants) == 1 else None

    def keys(self) -> tuple[str, ...]:
        """Every key, sorted."""
        return tuple(sorted(self._by_key))

    def names(self) -> tuple[str, ...]:
        """The names of the records, in the order of iteration."""
        return tuple(record.name for record in self)

    def conflicts(self) -> tuple[Conflict, ...]:
        """Keys that several plugins claim and nobody decided."""
        return tuple(self._conflict(key) for key, claimants in sorted(self._by_key.items()) if len(claimants) > 1)

    def trouble(self) -> str | None:
        """What may be the reason that nothing in this catalog fits: conflicts and plugins that failed.

        For the messages of those who look for a record by asking each, such as the loaders for a path.
        """
        lines = [f"{conflict}: {conflict.remedy}" for conflict in self.conflicts()]
        lines += [report.line for report in self._reports if report.status in (Status.FAILED, Status.INCOMPATIBLE)]
        return "; ".join(lines) or None

    def __iter__(self) -> Iterator[S]:
        return (entry.record for entry in self._entries if self._by_key[entry.record.name] == (entry,))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def _conflict(self, key: str) -> Conflict:
        owners = (entry.owner for entry in self._by_key[key])
        return Conflict(self.kind, key, tuple(sorted(owners, key=lambda owner: owner.label)))

    def _miss(self, key: str) -> UnknownNameError:
        message = f"there is no {self.kind} {key!r}"
        near = _near(key, self._by_key)
        if near:
            message += f"; did you mean {' or '.join(near)}?"
        trouble = self.trouble()
        if trouble:
            message += f"\n  note: {trouble}"
        return UnknownNameError(message, hint=self._remedy(key))

    def _remedy(self, key: str) -> str:
        distribution = distribution_of(self.kind, key)
        if distribution is None:
            return "`tramontane plugins` lists what is installed"
        for report in self._reports:
            if report.id.matches(distribution):
                return report.line
        return f"pip install {distribution}"


def _decide(claimants: list[Entry[S]], prefer: tuple[str, ...]) -> tuple[Entry[S], ...]:
    if len(claimants) > 1:
        for pattern in prefer:
            chosen = [entry for entry in claimants if entry.owner.matches(pattern)]
            if len(chosen) == 1:
                return (chosen[0],)
    return tuple(claimants)


def _near(key: str, keys: Iterable[str]) -> list[str]:
    from difflib import get_close_matches  # only a look-up that misses needs it

    by_fold = {candidate.casefold(): candidate for candidate in keys}
    return [by_fold[match] for match in get_close_matches(key.casefold(), by_fold, n=3, cutoff=0.6)]


@frozen(kw_only=True)
class Catalogs:
    """One generation of all catalogs. Nothing in it changes; late plugins make a new generation."""

    generation: int
    loaders: Catalog[r.LoaderSpec]
    writers: Catalog[r.WriterSpec]
    architectures: Catalog[r.ArchitectureSpec]
    quant_formats: Catalog[r.QuantFormatSpec]
    quantizers: Catalog[r.QuantizerSpec]
    encoders: Catalog[r.EncoderSpec]
    importances: Catalog[r.ImportanceSpec]
    backends: Catalog[r.BackendSpec]
    kernels: Catalog[r.KernelSpec]
    adapters: Catalog[r.AdapterSpec]
    tokenizers: Catalog[r.TokenizerSpec]
    processors: Catalog[r.ProcessorSpec]
    pipelines: Catalog[r.PipelineSpec]
    proposers: Catalog[r.ProposerSpec]
    executors: Catalog[r.ExecutorSpec]
    tool_providers: Catalog[r.ToolProviderSpec]
    chat_formats: Catalog[r.ChatFormatSpec]
    logits_processors: Catalog[r.LogitsProcessorSpec]
    frontends: Catalog[r.FrontendSpec]
    commands: Catalog[r.CommandSpec]
    health_checks: Catalog[r.HealthCheck]

    def __iter__(self) -> Iterator[Catalog[Any]]:
        return (getattr(self, name) for name in KINDS)

    def conflicts(self) -> tuple[Conflict, ...]:
        """All undecided conflicts."""
        return tuple(conflict for catalog in self for conflict in catalog.conflicts())
