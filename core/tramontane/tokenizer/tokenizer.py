# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a model: text to ids and back, special ids, and the bytes of each token.

Built over the ``tokenizers`` library from a checkpoint's ``tokenizer.json``. Other formats (tekken, tiktoken,
SentencePiece ...) come from plugins, which build the same class. It never decides what a prompt looks like; that is
:mod:`tramontane.chat`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers

from tramontane.checkpoint import Files
from tramontane.errors import CheckpointError, RequestError
from tramontane.tokenizer import special
from tramontane.tokenizer.guard import Guarded
from tramontane.tokenizer.marks import CLOSE, OPEN, Marker, without_marks
from tramontane.tokenizer.pieces import PieceRules

#: Files that hold a tokenizer in another format: name -> what it is.
_FOREIGN = {
    "tekken.json": "Mistral's tekken",
    "tokenizer.model": "SentencePiece or tiktoken",
    "spiece.model": "SentencePiece",
    "sentencepiece.bpe.model": "SentencePiece",
    "vocab.json": "byte-level BPE in two files (vocab.json, merges.txt)",
    "vocab.txt": "WordPiece",
}


class Tokenizer:
    """Text to ids and back.

    Args:
        backend: The library's tokenizer.
        names: ``{"bos_token": "<s>", "eos_token": ...}``, for chat templates.
        bos_id: The id that begins a text.
        eos_ids: Ids that end a generation.
        control: Added tokens that user text must not be able to spell; by default those flagged as special.
        ends: (add BOS, add EOS) instead of what the backend's post-processor adds.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        names: Mapping[str, str] | None = None,
        bos_id: int | None = None,
        eos_ids: Sequence[int] = (),
        control: Collection[str] | None = None,
        ends: tuple[bool, bool] | None = None,
    ) -> None:
        self.backend = backend
        self.names = dict(names or {})
        self.bos_id = bos_id
        self.eos_ids = tuple(eos_ids)
        added = backend.get_added_tokens_decoder()
        self.added_ids = {token: entry.content for token, entry in added.items()}
        """Tokens beside the model's own vocabulary, with their spelling."""
        self.special_ids = frozenset(token for token, entry in added.items() if entry.special)
        """Ids that :meth:`decode` leaves out by default."""
        self.control = special.control_tokens(backend, self.names, None) if control is None else frozenset(control)
        self.vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values(), default=-1)
        """One more than the largest id; a model's own vocabulary may be larger by padding."""
        decoder = backend.decoder
        self.pieces = PieceRules.of(json.loads(decoder.__getstate__()) if decoder is not None else None)
        """Rules that give each token's bytes; ``None`` where the decoder does not work a token at a time."""
        self.control_ids = frozenset(i for i in map(backend.token_to_id, self.control) if i is not None)
        self._ends = ends
        self._bytes: dict[int, bytes] = {}
        self._breakers: dict[str, frozenset[int]] = {}

    @classmethod
    def from_directory(cls, directory: Path | str, *, template: str | None = None) -> Tokenizer:
        """The tokenizer in a checkpoint's folder; see :meth:`from_files`."""
        return cls.from_files(Files.in_directory(Path(directory)), template=template)

    @classmethod
    def from_files(cls, files: Files, *, template: str | None = None) -> Tokenizer:
        """The tokenizer among a checkpoint's files.

        Args:
            files: ``tokenizer.json`` and, where present, the configurations that name special tokens.
            template: The chat template's source: control tokens and turn enders it writes are recognized.

        Raises:
            CheckpointError: There is no ``tokenizer.json``, or it cannot be read.
        """
        content = files.bytes("tokenizer.json")
        if content is None:
            raise _missing(files)
        backend = open_backend(content)
        names = special.special_names(files)
        id_of = backend.token_to_id
        return cls(
            backend,
            names={name: token for name, token in names.items() if id_of(token) is not None},
            bos_id=special.bos_id(files, names, id_of),
            eos_ids=special.eos_ids(files, names, id_of, template),
            control=special.control_tokens(backend, names, template),
            ends=special.explicit_ends(files),
        )

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Ids of a text.

        Args:
            text: Anything; whatever it spells is text unless ``parse_special``.
            add_special: Add what begins (and ends) a text for this model.
            parse_special: Read control tokens that the text spells as such.

        Raises:
            RequestError: The text is not valid Unicode (a lone surrogate).
        """
        body = self._encode_body(text)
        if not parse_special and not self.control_ids.isdisjoint(body):
            body = self._guarded.encode([(text, False)])
        return self._with_ends(body) if add_special else body

    def encode_rendered(self, marked: str) -> list[int]:
        """Ids of a rendered chat: the template's control tokens are ids, those in marks are text. Nothing is added."""
        if OPEN not in marked and CLOSE not in marked:
            return self._encode_body(marked)
        _check(marked)
        return self._guarded.encode(Marker.of(self.control).split(marked))

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids. Ids outside the vocabulary are nothing; broken UTF-8 becomes U+FFFD."""
        kept = [token for token in ids if not (skip_special_tokens and token in self.special_ids)]
        if self.pieces is None:
            known = [token for token in kept if self.backend.id_to_token(token) is not None]
            text: str = self.backend.decode(known, skip_special_tokens=False)
            return text
        content = b"".join(map(self.token_bytes, kept[1:]))
        if kept:
            content = self.first_bytes(kept[0]) + content
        return self.pieces.strip_start(content, 0)[0].decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """What a token contributes inside a text; nothing for ids outside the vocabulary."""
        found = self._bytes.get(token)
        if found is None:
            found = self._make_bytes(token, first=False)
            if token < self.vocab_size:
                self._bytes[token] = found
        return found

    def first_bytes(self, token: int) -> bytes:
        """What a token contributes at the start of a text."""
        return self._make_bytes(token, first=True)

    def token_id(self, token: str) -> int | None:
        """The id of a token given by its spelling in the vocabulary."""
        found: int | None = self.backend.token_to_id(token)
        return found

    def breaker_ids(self, strings: Sequence[str]) -> frozenset[int]:
        """Token ids that end a repeated sequence for DRY.

        A breaker's ids are all tokens whose text contains it, and, for breakers longer than any token, the last token
        it is encoded to after another letter (p-e-w's definition).
        """
        return frozenset[int]().union(*map(self._breaker, strings))

    def _breaker(self, string: str) -> frozenset[int]:
        found = self._breakers.get(string)
        if found is None:
            wanted = string.encode("utf-8", "ignore")
            ids = {token for token, content in self._all_bytes if wanted in content}
            ids.update(self.encode("a" + string, add_special=False)[-1:] if string else ())
            found = self._breakers[string] = frozenset(ids)
            if len(self._breakers) > 256:
                del self._breakers[next(iter(self._breakers))]
        return found

    @cached_property
    def _all_bytes(self) -> list[tuple[int, bytes]]:
        """Every ordinary token with its bytes."""
        return [(token, self.token_bytes(token)) for token in range(self.vocab_size) if token not in self.special_ids]

    @cached_property
    def _guarded(self) -> Guarded:
        return Guarded(self.backend, self.control)

    @cached_property
    def _added_ends(self) -> tuple[list[int], list[int]]:
        """What :meth:`encode` puts before and after a text."""
        if self._ends is None:
            probe = self.backend.encode("a", add_special_tokens=True)
            added = probe.special_tokens_mask
            before = added.index(0) if 0 in added else len(added)
            after = added[::-1].index(0) if 0 in added else 0
            return probe.ids[:before], probe.ids[len(added) - after :]
        eos = self.backend.token_to_id(self.names["eos_token"]) if "eos_token" in self.names else None
        opening = [self.bos_id] if self._ends[0] and self.bos_id is not None else []
        return opening, [eos] if self._ends[1] and eos is not None else []

    def _with_ends(self, body: list[int]) -> list[int]:
        before, after = self._added_ends
        return [*before, *body, *after]

    def _encode_body(self, text: str) -> list[int]:
        try:
            ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):
            _check(text)
            raise
        return ids

    def _make_bytes(self, token: int, first: bool) -> bytes:
        spelled = self.backend.id_to_token(token)
        if spelled is None:
            return b""
        if self.pieces is None:
            alone: str = self.backend.decode([token], skip_special_tokens=False)
            return alone.encode("utf-8")
        return self.pieces.bytes_of(spelled, first)


def open_backend(content: bytes) -> tokenizers.Tokenizer:
    """The library's tokenizer from the bytes of a ``tokenizer.json``.

    Raises:
        CheckpointError: The library cannot read it.
    """
    try:
        backend = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(
            f"tokenizer.json cannot be read: {error}",
            hint="the file may be cut off, or need a newer version of the `tokenizers` package",
        ) from error
    backend.no_truncation()
    backend.no_padding()
    return backend


def _check(text: str) -> None:
    try:
        without_marks(text).encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(f"the text is not valid Unicode: {error.reason} at character {error.start}") from error


def _missing(files: Files) -> CheckpointError:
    """No ``tokenizer.json``: say which other kind of tokenizer is there and what reads it."""
    kinds = [f"{name} ({kind})" for name, kind in _FOREIGN.items() if name in files]
    if not kinds:
        return CheckpointError(
            "the checkpoint has no tokenizer.json and no other tokenizer file",
            hint="give one with --tokenizer, or use token ids in place of text",
        )
    return CheckpointError(
        f"the checkpoint has no tokenizer.json, only {', '.join(kinds)}, which no installed plugin reads",
        hint="install a plugin with a TokenizerSpec for it, or give a tokenizer.json with --tokenizer",
    )
