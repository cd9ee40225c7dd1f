# SPDX-License-Identifier: Apache-2.0
"""Which files of a repository are worth fetching: the weights in one safe format, and the small files beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from tramontane.errors import CheckpointError, HubError, UnsafeFormatError
from tramontane.hub.layout import INDEX, OTHER_LAYOUT, PICKLE, SHARD

Choose = Callable[[Sequence[str], str | None], Sequence[str]]
"""``choose(names, quant)``: see :attr:`tramontane.records.LoaderSpec.choose`."""
_BESIDE = ("*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt", "additional_chat_templates/*.jinja")


def choose_files(
    names: Iterable[str],
    repository: str,
    *,
    patterns: Sequence[str] | None = None,
    endings: Sequence[str] = (),
    allow_pickle: bool = False,
    choose: Choose | None = None,
    quant: str | None = None,
) -> list[str]:
    """Names of the files to fetch, sorted.

    Args:
        names: All files of the repository, with ``/`` between folders.
        repository: Its name, for errors.
        patterns: Shell patterns of the weight files; by default safetensors, else the one file with another loader's
            ending, else (if allowed) pickle.
        endings: What the file names of other loaders end in, such as ``.gguf``.
        allow_pickle: Whether pickled weights may be fetched.
        choose: Finds one model among the files of other loaders.
        quant: The type that the user asked for: a model stored so wins over any other.

    Raises:
        HubError: No file matches the patterns, or it is not clear which weights are meant.
        CheckpointError: The repository has no weights in a known layout.
        UnsafeFormatError: It has pickled weights only and they are not allowed.
    """
    usable = sorted(name for name in names if _is_plain(name))
    beside = [name for name in usable if any(_fits(name, pattern) for pattern in _BESIDE)]
    if patterns is not None:
        weights = [name for name in usable if any(fnmatchcase(name, pattern) for pattern in patterns)]
        if not weights:
            raise HubError(f"{repository} has no file that matches {' or '.join(patterns)}", hint=_listing(usable))
    else:
        stored = choose(usable, quant) if choose is not None and quant is not None else ()
        weights = list(stored) or _weights(usable, repository, endings, allow_pickle, choose)
    return sorted({*beside, *weights})


def _weights(
    usable: list[str], repository: str, endings: Sequence[str], allow_pickle: bool, choose: Choose | None
) -> list[str]:
    top = [name for name in usable if "/" not in name]
    shards = [name for name in top if SHARD.fullmatch(name)]
    if shards and (INDEX in top or "model.safetensors" not in top):
        return shards
    if "model.safetensors" in top:
        return ["model.safetensors"]
    safe = [name for name in top if name.endswith(".safetensors")]
    known = [name for name in safe if not OTHER_LAYOUT.fullmatch(name)]
    if known:
        return known
    chosen = choose(usable, None) if choose is not None else ()
    if chosen:
        return list(chosen)
    others = [name for name in usable if name.endswith(tuple(endings))]
    if len(others) == 1:
        return others
    if others:
        raise HubError(
            f"{repository} has {len(others)} files that could be the model; say which type, with --quant",
            hint=_listing(others),
        )
    pickled = [name for name in top if PICKLE.fullmatch(name)]
    if pickled and not allow_pickle:
        raise UnsafeFormatError(
            f"{repository} has its weights as pickle only ({', '.join(pickled[:3])}), and a pickle can run code when "
            "loaded; nothing was downloaded",
            hint="look for a revision or repository with safetensors, or pass --allow-pickle if you trust it",
        )
    if not pickled:
        raise CheckpointError(f"{repository} has no weights in a known layout", hint=_listing(safe or top))
    return pickled


def _fits(name: str, pattern: str) -> bool:
    """A pattern without a folder is about files of the top folder."""
    return fnmatchcase(name, pattern) and ("/" in pattern or "/" not in name)


def _is_plain(name: str) -> bool:
    """No absolute paths, no way up, no control characters: names come from strangers."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and ":" not in name and not any(p in ("", ".", "..") for p in parts)


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"it has {', '.join(names[:20])}{more}" if names else "it has no files that this program knows"
