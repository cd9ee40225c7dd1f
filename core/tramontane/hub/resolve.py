# SPDX-License-Identifier: Apache-2.0
"""From a model reference to local files: a path as it is, a repository through the hub's cache."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tramontane.errors import ConfigError, HubError, ModelNotFoundError
from tramontane.hub.choice import Choose, choose_files
from tramontane.hub.listing import Announce, Listing, unannounced
from tramontane.hub.tokens import read_token
from tramontane.progress import Counter, Progress, silent

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

    from tramontane.hub.cache import RepositoryCache
    from tramontane.hub.faults import Request

log = logging.getLogger(__name__)

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_FILE_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".json")
_TRUE = ("1", "on", "yes", "true")


def resolve(
    ref: str | Path,
    *,
    revision: str | None = None,
    token_source: str = "cache",
    offline: bool | None = None,
    allow_pickle: bool = False,
    files: Sequence[str] | None = None,
    endings: Sequence[str] = (),
    choose: Choose | None = None,
    quant: str | None = None,
    progress: Progress = silent,
    announce: Announce = unannounced,
    endpoint: str | None = None,
    cache_dir: Path | None = None,
) -> Path:
    """Local files of a model.

    A path that exists is returned as it is and nothing else happens: no network, no import of the hub's client.
    Anything else is a repository: its small files and its weights (in one format) are fetched into the hub's cache.

    Args:
        ref: A directory or file, or ``owner/name`` on the hub.
        revision: Branch, tag or commit of a repository.
        token_source: See :func:`tramontane.hub.tokens.read_token`.
        offline: Use the cache only; by default ``HF_HUB_OFFLINE`` decides.
        allow_pickle: Fetch pickled weights if there are no others.
        files: Shell patterns of the weight files to fetch, instead of the usual choice.
        endings: What the file names of other loaders end in (``.gguf``): one such file can be the model.
        choose: Finds one model among the files of other loaders; see :attr:`tramontane.records.LoaderSpec.choose`.
        quant: The type that the user asked for: a model stored so wins over any other.
        progress: Told about the download.
        announce: Told what will be downloaded before anything is; what it raises ends the call.
        endpoint: The hub's address; by default ``HF_ENDPOINT``.
        cache_dir: The hub's cache; by default where its client keeps it (``HF_HOME``, ``HF_HUB_CACHE``).

    Returns:
        The directory (or file) that a loader can open.

    Raises:
        ModelNotFoundError: Neither a path nor a repository, or the revision does not exist.
        GatedModelError, AuthenticationError, OfflineError, DiskFullError: As their names say.
        UnsafeFormatError: The repository has pickled weights only.
        HubError: Anything else that went wrong with the hub.
    """
    path = _existing(ref)
    if path is not None:
        if revision is not None:
            raise ConfigError(f"{ref} is a local path, which has no revision {revision!r}")
        return _chosen(path, choose, quant) or path if path.is_dir() else path
    name = str(ref)
    if isinstance(ref, Path) or _looks_like_path(name, endings):
        raise ModelNotFoundError(f"there is no file or directory {name!r}", hint=_near(name))
    token = read_token(token_source)

    from huggingface_hub import constants, get_token

    from tramontane.hub.cache import RepositoryCache
    from tramontane.hub.faults import Request, not_cached, not_found

    has_token = token is not False and bool(token or get_token())
    where = (endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    request = Request(name, revision or "main", where, has_token)
    if not _REPOSITORY.fullmatch(name) or ".." in name or "--" in name or ".." in request.revision:
        raise not_found(request)
    cache = RepositoryCache(Path(cache_dir or constants.HF_HUB_CACHE).expanduser(), name)
    if _is_offline(constants.HF_HUB_OFFLINE) if offline is None else offline:
        found = cache.snapshot(request.revision)
        if found is None:
            raise not_cached(request)
    else:
        wanted = partial(
            choose_files,
            repository=name,
            patterns=files,
            endings=endings,
            allow_pickle=allow_pickle,
            choose=choose,
            quant=quant,
        )
        found = _through_hub(request, cache, token, wanted, progress, announce)
    return (_chosen(found, choose, quant) if files is None else None) or _weights_path(found, files, endings)


def _through_hub(
    request: Request, cache: RepositoryCache, token: str | bool | None,
    choose: Callable[[Iterable[str]], list[str]], progress: Progress, announce: Announce,
) -> Path:  # fmt: skip
    from tramontane.hub.download import fetch
    from tramontane.hub.faults import translate

    cached = cache.snapshot(request.revision)
    try:
        info = _ask(request, token)
    except Exception as error:
        fault = translate(error, request)
        if cached is None or isinstance(fault, ModelNotFoundError):
            raise fault from error
        log.warning("using the cached copy of %s: %s", request.name, fault.message)
        return cached
    commit = info.sha or request.revision
    if not commit.isalnum():
        raise HubError(f"{request.endpoint} answered for {request.name} with {commit!r}, which is not a commit")
    sizes = {item.rfilename: item.size or 0 for item in info.siblings or ()}
    wanted = {name: sizes[name] for name in choose(sizes)}
    missing = [name for name in wanted if not cache.holds(commit, name)]
    need = sum(wanted[name] for name in missing)
    announce(Listing(request.repository, commit, cache.root, wanted, tuple(missing), cache.free()))
    try:
        if missing:
            cache.check_room(need)
            log.info("downloading %d files of %s", len(missing), request.name)
            fetch(
                missing, repository=request.repository, commit=commit, endpoint=request.endpoint,
                cache_dir=cache.root, token=token, counter=Counter(progress, "download", need),
            )  # fmt: skip
    except Exception as error:
        raise translate(error, request) from error
    cache.note(request.revision, commit)
    found = cache.snapshot(commit)
    if found is None:
        raise HubError(f"{request.name} was downloaded, but {cache.folder} does not hold it")
    return found


def _ask(request: Request, token: str | bool | None) -> ModelInfo:
    """Commit, file names and sizes of a revision."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=request.endpoint, token=token)
    revision = None if request.revision == "main" else request.revision
    return api.model_info(request.repository, revision=revision, files_metadata=True, timeout=10)


def _chosen(folder: Path, choose: Choose | None, quant: str | None) -> Path | None:
    """The file that another loader would open: one in the asked type, or the only model where nothing else is there."""
    if choose is None:
        return None
    files = (path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    found = choose(names, quant) if quant is not None else ()
    if not found and not any(folder.glob("*.safetensors")):
        found = choose(names, None)
    return folder / found[0] if found else None


def _weights_path(folder: Path, files: Sequence[str] | None, endings: Sequence[str]) -> Path:
    """The folder, or the one file in it that stands for the model: it was asked for, or there is nothing else."""
    if files is None and any(folder.glob("*.safetensors")):
        return folder
    patterns = (
        [f"*{ending}" for ending in endings] if files is None else [p for p in files if p.endswith(tuple(endings))]
    )
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return found[0] if found else folder


def _existing(ref: str | Path) -> Path | None:
    """The path that a reference names, if there is one."""
    if not str(ref).strip():
        return None
    try:
        path = Path(ref).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, no home directory
        return None


def _near(name: str) -> str:
    """What may have been meant by a path that does not exist."""
    try:
        path = Path(name).expanduser()
        found = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    except (OSError, ValueError, RuntimeError):
        found = []
    return (
        f"did you mean {path.parent / found[0]}? Nothing was downloaded"
        if found
        else "check the path; nothing was downloaded"
    )


def _looks_like_path(name: str, endings: Sequence[str]) -> bool:
    return (
        name.startswith((".", "/", "~", "\\"))
        or "\\" in name
        or name.count("/") > 1
        or name.lower().endswith((*_FILE_ENDINGS, *endings))
        or not name.strip()
    )


def _is_offline(at_import: bool) -> bool:
    """The client reads the variable when it is imported; it may have been set since."""
    return at_import or os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE
