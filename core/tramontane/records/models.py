# SPDX-License-Identifier: Apache-2.0
"""Records about models and their files: loaders, writers, architectures, formats, adapters, tokenizers, templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from attrs import frozen

from tramontane.records.base import Record, lazy, lazy_mapping, names, optional_lazy, texts


@frozen(kw_only=True)
class LoaderSpec(Record):
    """Opens one kind of checkpoint on disk."""

    kind: ClassVar[str] = "loader"

    open: str = lazy()
    """``open(source, options) -> Checkpoint``; ``source`` is a local path."""
    detect: str = lazy()
    """``detect(path) -> bool``: whether this loader can open the path; cheap, reads a few bytes at most."""
    priority: int = 0
    """Loaders are asked from the highest priority to the lowest, then by name."""
    extensions: tuple[str, ...] = texts(default=())
    """File name endings this loader is for, with the dot; for messages."""
    choose: str | None = optional_lazy()
    """``choose(names, quant) -> Sequence[str]``: of the files of a repository, those of one model that this loader can
    read, stored in the type that the user asked for (``None`` if in none); the one to open comes first. Empty where
    there is no such model, or several and nothing tells which is meant."""


@frozen(kw_only=True)
class WriterSpec(Record):
    """Writes a checkpoint to disk in one format."""

    kind: ClassVar[str] = "writer"

    write: str = lazy()
    """``write(export, path, options) -> Sequence[Path]``: a :class:`~tramontane.export.Export`, where to, and
    :class:`~tramontane.export.WriteOptions`; the answer is the files with weights."""
    extensions: tuple[str, ...] = texts(default=())
    """File name endings it writes, with the dot; the first is the default."""
    types: Mapping[str, str] = names()
    """Types that the format holds in a form of its own: a type's name -> the type to quantize to instead, wherever the
    first is asked for."""


@frozen(kw_only=True)
class ArchitectureSpec(Record):
    """One model architecture."""

    kind: ClassVar[str] = "architecture"

    classes: tuple[str, ...] = texts()
    """Hugging Face class names (``architectures`` in ``config.json``) that this architecture runs."""
    config: str = lazy()
    """The attrs class that reads ``config.json``."""
    model: str = lazy()
    """``Model(config, builder)``."""
    modality: str = "text"
    """``text``, ``vision``, ``audio``, ``speech``, ``image`` ..."""
    dialects: Mapping[str, str] = lazy_mapping()
    """Lazy :class:`~tramontane.dialects.Dialect` for checkpoints with foreign names. A key is ``format`` or
    ``format:name``, the name that format gives this architecture; a bare format means this record's own name. What
    follows a ``+`` is asked for first where a checkpoint has it: ``format:name+experts``."""
    weight_map: str | None = optional_lazy()
    """Lazy ``WeightMap`` where tensor names in a Hugging Face checkpoint differ from the module paths, or a function
    that makes one from the content of ``config.json``."""
    samples: str | None = optional_lazy()
    """``samples() -> Mapping[str, dict]``: tiny ``config.json`` contents for the conformance kit, by name."""
    capabilities: tuple[str, ...] = texts(default=("generate",))
    """What the model can be asked for: ``generate``, ``embed``, ``rerank`` ..."""
    tensor_parallel: bool = False
    """Several workers may share a model: every layer is made by the builder with the axis along which it is split, and
    the model's own code counts no heads or features that are."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The name, the Hugging Face classes, and ``format:name`` for every dialect."""
        foreign = (key if ":" in key else f"{key}:{self.name}" for key in self.dialects)
        return tuple(dict.fromkeys((self.name, *self.classes, *foreign)))


@frozen(kw_only=True)
class QuantFormatSpec(Record):
    """A stored quantization format."""

    kind: ClassVar[str] = "quantization format"

    format: str = lazy()
    """Lazy ``QuantFormat``: ``detect(checkpoint)``, then per tensor its scheme and canonical form."""


@frozen(kw_only=True)
class QuantizerSpec(Record):
    """A type that weights can be quantized to while a model loads; ``--quant`` names it, in any case."""

    kind: ClassVar[str] = "quantization type"

    make: str = lazy()
    """``make(name) -> Quantizer`` of :mod:`tramontane.quantization`; gets the record's name."""
    aliases: tuple[str, ...] = texts(default=())
    """Further names, in lower case."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The name and the aliases."""
        return tuple(dict.fromkeys((self.name, *self.aliases)))


@frozen(kw_only=True)
class EncoderSpec(Record):
    """What packs some types quicker than they pack themselves, on some kinds of device, with the same result."""

    kind: ClassVar[str] = "encoder"

    offer: str = lazy()
    """``offer(quantizer) -> Pack | None`` of :mod:`tramontane.quantization`: how weights on one of the devices are
    packed by the type's ``rule`` into its scheme; ``None`` for types that it does not know, or where it cannot run."""
    devices: tuple[str, ...] = texts(default=("cpu",))
    """torch device types that weights may lie on."""
    priority: int = 0
    """Of the encoders that know a type, the highest wins."""


@frozen(kw_only=True)
class ImportanceSpec(Record):
    """Files that say how much errors of each input of a matrix count: what quantizing may weigh by."""

    kind: ClassVar[str] = "importance format"

    form: str = ""
    """The format whose dialects name the matrices: ``gguf``."""
    detect: str = lazy()
    """``detect(path) -> bool``: whether this can read the path; cheap, reads a few bytes at most."""
    read: str = lazy()
    """``read(path) -> ImportanceFile`` of :mod:`tramontane.quantization`."""
    write: str = lazy()
    """``write(path, file) -> None``; the path's ending may choose among variants."""
    extensions: tuple[str, ...] = texts(default=())
    """File name endings it writes, with the dot; the first is the default."""


@frozen(kw_only=True)
class AdapterSpec(Record):
    """A kind of adapter: LoRA, X-LoRA, AnyMoE ..."""

    kind: ClassVar[str] = "adapter"

    open: str = lazy()
    """``open(path, options) -> Adapter`` of :mod:`tramontane.adapters`; ``options`` are
    :class:`~tramontane.checkpoint.OpenOptions`."""
    detect: str = lazy()
    """``detect(path) -> bool``: whether this can open the path, a folder as a rule; cheap."""
    files: tuple[str, ...] = texts(default=())
    """Shell patterns of its weight files, to fetch from a repository on the hub."""
    priority: int = 0
    """Kinds are asked from the highest priority to the lowest, then by name."""


@frozen(kw_only=True)
class TokenizerSpec(Record):
    """Reads one kind of tokenizer file."""

    kind: ClassVar[str] = "tokenizer"

    open: str = lazy()
    """``open(path) -> Tokenizer``; ``path`` is the checkpoint's folder."""
    files: tuple[str, ...] = texts(default=())
    """File names (shell patterns) whose presence in the folder selects it."""
    priority: int = 0
    """Where several match, the highest wins."""


@frozen(kw_only=True)
class ProcessorSpec(Record):
    """Turns images, audio or video into spans of a prompt and encoder inputs."""

    kind: ClassVar[str] = "processor"

    processor: str = lazy()
    """``Processor(config)``: media in; spans, encoder inputs and a content hash out."""
    classes: tuple[str, ...] = texts(default=())
    """Hugging Face processor class names (``preprocessor_config.json``)."""
    modalities: tuple[str, ...] = texts(default=())
    """``image``, ``audio``, ``video``."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The name and the Hugging Face classes."""
        return tuple(dict.fromkeys((self.name, *self.classes)))


@frozen(kw_only=True)
class ChatFormatSpec(Record):
    """What a family of chat templates does that the template itself cannot say."""

    kind: ClassVar[str] = "chat format"

    markers: tuple[str, ...] = texts(default=())
    """Strings that all occur in a chat template of this format; without any it is only chosen by name."""
    template: str | None = optional_lazy()
    """``adapt(template) -> str``: repairs a template's quirks."""
    format: str = lazy()
    """The :class:`~tramontane.chat.parsing.ChatFormat`: parser and grammar of what the model writes."""
    priority: int = 0
    """Where several match, the highest wins."""
