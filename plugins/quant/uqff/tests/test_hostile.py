# SPDX-License-Identifier: Apache-2.0
"""Files that strangers broke or built: a typed error, quickly, with little memory. Never anything else."""

from __future__ import annotations

import json
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor
from uqff_samples import (
    CONFIG,
    LAYER,
    SIZE,
    U32,
    beside,
    blob,
    others,
    packed,
    recorded,
    sizes,
    unquant,
    versions,
    weight,
)

from tramontane.build.sources import Sources
from tramontane.errors import CheckpointError, TramontaneError
from tramontane.memory import PeakMemory
from tramontane.testing.fuzzing import EXTREMES, feed, overwrite
from tramontane.weightmap import WeightMap
from tramontane_quant_uqff.format import UqffFormat
from tramontane_quant_uqff.loader import open_uqff

KINDS = ("q8_0", "afq3", "afq6", "hqq4", "fp8", "f8q8", "mxfp4")
HUGE = 2**63


def new_file(**changes: Tensor | None) -> bytes:
    """A file with a layer of every kind; ``changes`` are about the first, which is of GGML."""
    tensors = versions()
    for kind in KINDS:
        tensors |= {f"{kind}.{name}": value for name, value in recorded("1.2", kind).items()}
    for name, value in changes.items():
        key = name.replace("__", ".")
        key = key if key.startswith("uqff") else f"q8_0.{key}"
        tensors.pop(key, None)
        if value is not None:
            tensors[key] = value
    return save(tensors)


def u8(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8)


def u32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint32)


def header(text: str, size: int | None = None) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw) if size is None else size) + raw


BROKEN_FILES = {
    "empty": b"",
    "a header of 2^63 bytes": header("{}", HUGE),
    "a header past the end": header("{}", 4000),
    "no JSON": header("{]"),
    "nothing in it": header("{}"),
    "a shape of 2^63": header('{"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,0]}}'),
    "offsets past the end": header('{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'),
    "no version": save(unquant("a", LAYER)),
    "half a version": new_file(uqff__version__minor=None),
    "a version that is a list": new_file(uqff__version__minor=u32(2)),
    "a version of bytes": new_file(uqff__version__minor=u8(2).reshape(())),
    "version 2.0": new_file(uqff__version__major=u32(2).reshape(())),
    "version 1.3": new_file(uqff__version__minor=u32(3).reshape(())),
    "a layer that is residual too": save(versions() | unquant("model.norm", torch.ones(SIZE))),
}
BROKEN_LAYERS = {
    "kind 7": {"weight__format": u8(7).reshape(())},
    "kind of two numbers": {"weight__format": u8(0, 0)},
    "kind of four bytes": {"weight__format": u32(0).reshape(())},
    "no type": {"weight__dtype": None},
    "type 99": {"weight__dtype": u32(99).reshape(())},
    "type of one byte": {"weight__dtype": u8(8).reshape(())},
    "no shape": {"weight__shape": None},
    "a shape of one": {"weight__shape": u32(SIZE)},
    "a shape of five": {"weight__shape": u32(1, 1, 1, SIZE, SIZE)},
    "a shape of bytes": {"weight__shape": u8(SIZE, SIZE)},
    "rows of 2^32 - 1": {"weight__shape": u32(SIZE, 2**32 - 1)},
    "rows of another length": {"weight__shape": u32(SIZE, 32)},
    "too little data": {"weight": torch.zeros(34, dtype=torch.uint8)},
    "data that is no rows": {"weight": torch.zeros(4351, dtype=torch.uint8)},
    "data of numbers": {"weight": torch.zeros(4352)},
    "another kind than it is": {"weight__format": u8(4).reshape(())},
}
HEAD = "the head, first"
BROKEN_BLOBS = {
    "empty": b"",
    "cut in the version": U32(0x200)[:3],
    "version 1.0": blob(1, b"\0", packed(LAYER), version=0x010000),
    "version 0.3": blob(1, b"\0", packed(LAYER), version=0x000300),
    "kind 7": blob(7, b"\0", packed(LAYER)),
    "cut in a tensor": blob(1, b"\0", packed(LAYER))[:-1],
    "something behind": blob(1, b"\0", packed(LAYER), b"\0"),
    "no bias where one is promised": blob(1, b"\1", packed(LAYER)),
    "a tensor of 2^32 - 1 bytes": blob(1, b"\0", U32(2**32 - 1), U32(6), sizes((SIZE, SIZE))),
    "a tensor of 2^32 - 1 dimensions": blob(1, b"\0", U32(16), U32(6), U32(2**32 - 1)),
    "dimensions whose product wraps": blob(1, b"\0", U32(0), U32(0), sizes((2**31, 2**31, 4))),
    "an element type of 77": blob(1, b"\0", U32(16), U32(77), sizes((4,)), bytes(16)),
    "GGML of type 77": blob(0, U32(34), b"\0", U32(77), sizes((1, 32)), bytes(34)),
    "GGML of another size": blob(0, U32(34), b"\0", U32(8), sizes((64, 32)), bytes(34)),
    "GGML without a shape": blob(0, U32(34), b"\0", U32(8), sizes(()), bytes(34)),
    "F8Q8 of 2^32 - 1 blocks": blob(5, b"\0", U32(2**32 - 1), sizes((64, 32)), bytes(33)),
    "HQQ without zero points": blob(2, b"\0", packed(LAYER), packed(LAYER)),
}


def refused(folder: Path, content: bytes, digest: Callable[[Path], None]) -> str:
    path = folder / "x-0.uqff"
    path.write_bytes(content)
    (folder / "residual.safetensors").write_bytes(save(others()))
    beside(folder, {**CONFIG, "num_hidden_layers": 1})
    started = time.process_time()
    with PeakMemory() as memory, pytest.raises(TramontaneError) as caught:
        digest(path)
    assert time.process_time() - started < 0.1
    assert memory.growth < 50 * 2**20
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_file_is_a_typed_error_at_once(name: str, tmp_path: Path) -> None:
    refused(tmp_path, BROKEN_FILES[name], lambda path: open_uqff(path).close())


@pytest.mark.parametrize("name", BROKEN_LAYERS)
def test_a_broken_layer_is_a_typed_error_at_once(name: str, tmp_path: Path) -> None:
    assert "q8_0" in refused(tmp_path, new_file(**BROKEN_LAYERS[name]), everything)


def old_file(first: bytes | None = None) -> bytes:
    """A model of one block: head, queries, keys, values, output, gate, up, down."""
    f = {kind: recorded("1.2", kind) for kind in KINDS}
    raw = {name: t.contiguous().flatten().view(torch.uint8).numpy().tobytes() for name, t in f["q8_0"].items()}
    hqq = f["hqq4"]
    words = {name: hqq[f"weight.{name}"] for name in ("bits", "group_size", "axis", "optimization_steps")}
    said = [t.flatten().view(torch.uint8).numpy().tobytes() for t in words.values()]
    three = [packed(f["afq3"][name]) for name in ("weight", "weight.scales", "weight.biases")]
    parts = [packed(hqq[name]) for name in ("weight", "weight.scales", "weight.zeros")]
    scale = struct.pack("<f", 0.1)
    blobs = [
        blob(1, b"\0", packed(weight(8, SIZE))) if first is None else first,
        blob(0, U32(len(raw["weight"])), b"\0", U32(8), sizes((SIZE, SIZE)), raw["weight"]),
        blob(2, b"\0", *parts, sizes((SIZE, SIZE)), *said, b"\0\1"),
        blob(3, b"\1", packed(f["fp8"]["weight"]), scale, scale, scale, U32(9), packed(torch.zeros(SIZE))),
        blob(4, b"\0", *three, bytes([3, 64])),
        blob(5, b"\0", U32(128), sizes((SIZE, SIZE)), f["f8q8"]["weight"].numpy().tobytes()),
        blob(6, b"\0", packed(f["mxfp4"]["weight"]), packed(f["mxfp4"]["weight.scales"])),
        blob(1, b"\1", packed(LAYER), packed(torch.zeros(SIZE))),
    ]
    return save({str(i): torch.tensor(list(one), dtype=torch.uint8) for i, one in enumerate(blobs)})


@pytest.mark.parametrize("name", BROKEN_BLOBS)
def test_a_broken_blob_is_a_typed_error_at_once(name: str, tmp_path: Path) -> None:
    assert "layer 0" in refused(tmp_path, old_file(BROKEN_BLOBS[name]), everything)


def test_numbers_that_leave_one_out(tmp_path: Path) -> None:
    one = torch.frombuffer(bytearray(blob(1, b"\0", packed(LAYER))), dtype=torch.uint8)
    message = refused(tmp_path, save({"0": one, "2": one.clone()}), everything)
    assert "not numbered from 0 to 1" in message


@pytest.mark.parametrize("name", ["config.json", "residual.safetensors"])
def test_what_is_beside_is_missed_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "x-0.uqff").write_bytes(new_file())
    (tmp_path / "residual.safetensors").write_bytes(save(others()))
    beside(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        open_uqff(tmp_path)


def test_the_report_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "x.uqff").write_bytes(new_file())
    (tmp_path / "residual.safetensors").write_bytes(save(others()))
    beside(tmp_path)
    report = {"outputs": [{"shards": ["x.uqff", "../../etc/passwd"]}]}
    (tmp_path / "uqff_report.json").write_text(json.dumps(report))
    with pytest.raises(CheckpointError, match="not a plain file name"):
        open_uqff(tmp_path / "x.uqff")


# --- fuzzing ----------------------------------------------------------------------------------------------------------


def everything(path: Path) -> None:
    """All that loading asks of a file before a model is built, and every layer's numbers."""
    with open_uqff(path) as checkpoint:
        sources = Sources.of(checkpoint, WeightMap(), [UqffFormat()], [])
        for name in checkpoint.tensors:
            if name.endswith(".weight.format"):
                module = name.removesuffix(".weight.format")
                found = sources.part(module, (8 if module == "lm_head" else SIZE, SIZE), {})
                if found is not None and not found.misfits:
                    found.scheme.dequantize(found.read(), found.shape)
                elif found is not None:
                    raise CheckpointError(found.misfits[0])


def mutated(valid: bytes, hot: list[int], rng: random.Random) -> bytes:
    """A file that differs from a valid one in a few places, most of them where something is described."""
    content = bytearray(valid)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.choice(hot) + rng.randrange(48) if rng.random() < 0.8 else rng.randrange(len(content))
        at = min(at, len(content) - 1)
        match rng.randrange(6):
            case 0 | 1 | 2 | 3:
                overwrite(content, at, rng)
            case 4:
                content[at : at + 8] = str(rng.choice(EXTREMES)).encode()[:8]
            case 5:
                del content[at : at + rng.randrange(1, 16)]
    if rng.random() < 0.1:
        del content[rng.randrange(len(content)) :]
    return bytes(content) or b"x"


def hot_spots(valid: bytes) -> list[int]:
    """Where descriptions are: all over the header, and where each tensor begins."""
    length = int.from_bytes(valid[:8], "little")
    stored = json.loads(valid[8 : 8 + length])
    starts = [8 + length + one["data_offsets"][0] for name, one in stored.items() if name != "__metadata__"]
    return [*range(0, length, max(1, length // len(starts))), *starts]


def fuzz(folder: Path, cases: int) -> None:
    (folder / "residual.safetensors").write_bytes(save(others()))
    beside(folder, {**CONFIG, "num_hidden_layers": 1})
    files = [(valid, hot_spots(valid)) for valid in (new_file(), old_file())]
    path, rng = folder / "x-0.uqff", random.Random(30)
    assert not any(feed(path, (valid for valid, _ in files), everything)), "whole files are read"
    refused = feed(path, (mutated(*files[case % 2], rng) for case in range(cases)), everything)
    for outcomes in (refused[::2], refused[1::2]):
        assert cases * 0.1 < sum(outcomes) < cases * 0.5, "most break the file, some do not"


def test_mutated_files_are_refused_or_read(tmp_path: Path) -> None:
    fuzz(tmp_path, 600)


@pytest.mark.full
def test_mutated_files_are_refused_or_read_at_length(tmp_path: Path) -> None:
    fuzz(tmp_path, 100_000)
