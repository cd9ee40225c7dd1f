# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint may not do: lie in its headers, name files elsewhere, run code."""

from __future__ import annotations

import json
import pickle
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import CONFIG, write, write_raw

from tramontane.checkpoint import OpenOptions, open_checkpoint
from tramontane.checkpoint import safetensors as headers
from tramontane.errors import CheckpointError, UnsafeFormatError
from tramontane.memory import PeakMemory

TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def hostile_headers() -> dict[str, tuple[bytes, str]]:
    def one(**changes: Any) -> bytes:
        return json.dumps({"t": TENSOR | changes}).encode()

    return {
        "not JSON": (b"{]", "not valid"),
        "not UTF-8": (b'{"\xff": 1}', "not valid"),
        "a list": (b"[]", "not a JSON object"),
        "deep": (b'{"t":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid"),
        "duplicate names": (b'{"t": %b, "t": %b}' % ((json.dumps(TENSOR).encode(),) * 2), "appears twice"),
        "duplicate keys": (
            b'{"t": {"dtype": "F32", "dtype": "F32", "shape": [], "data_offsets": [0, 4]}}',
            "appears twice",
        ),
        "NaN shape": (b'{"t": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}', "NaN"),
        "infinite shape": (b'{"t": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 8]}}', "Infinity"),
        "fraction": (b'{"t": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}', "not a whole number"),
        "endless number": (
            b'{"t": {"dtype": "F32", "shape": [%b], "data_offsets": [0, 8]}}' % (b"9" * 10_000),
            "not valid",
        ),
        "negative shape": (one(shape=[-2]), "impossible shape"),
        "huge shape": (one(shape=[2**64]), "impossible shape"),
        "overflowing shape": (one(shape=[2**62, 4]), "cannot have"),
        "wrapping shape": (one(shape=[2**32, 2**32, 0, 2]), "cannot have"),
        "boolean shape": (one(shape=[True, 2]), "impossible shape"),
        "text shape": (one(shape="22"), "impossible shape"),
        "many dimensions": (one(shape=[1] * 100), "impossible shape"),
        "unknown dtype": (one(dtype="F13"), "unknown dtype"),
        "list dtype": (one(dtype=["F32"]), "unknown dtype"),
        "wrong size": (one(shape=[3]), "cannot have 8 bytes"),
        "wrong width": (one(dtype="F64"), "cannot have 8 bytes"),
        "backward offsets": (one(data_offsets=[8, 0]), "data_offsets"),
        "one offset": (one(data_offsets=[8]), "data_offsets"),
        "negative offset": (one(data_offsets=[-8, 0]), "data_offsets"),
        "past the end": (one(data_offsets=[8, 16]), "leaves a hole"),
        "far past the end": (one(shape=[2**40], data_offsets=[0, 2**42]), "cut short"),
        "missing key": (b'{"t": {"dtype": "F32", "shape": [2]}}', "needs exactly"),
        "further key": (one(evil=1), "needs exactly"),
        "not an object": (b'{"t": 1}', "needs exactly"),
        "metadata list": (json.dumps({"__metadata__": [], "t": TENSOR}).encode(), "metadata"),
        "metadata number": (json.dumps({"__metadata__": {"a": 1}, "t": TENSOR}).encode(), "metadata"),
        "overlap": (
            json.dumps({"t": TENSOR, "u": {**TENSOR, "data_offsets": [4, 8], "shape": [1]}}).encode(),
            "overlaps",
        ),
        "all the same": (json.dumps({"t": TENSOR, "u": TENSOR}).encode(), "overlaps"),
        "nothing": (b"{}", "bytes behind"),
    }


@pytest.mark.parametrize("case", hostile_headers())
def test_a_hostile_header_is_refused(tmp_path: Path, case: str) -> None:
    text, message = hostile_headers()[case]
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    write_raw(tmp_path / "model.safetensors", text, bytes(8))
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert "model.safetensors" in caught.value.message
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("length", "size", "message"),
    [(2**63, 100, "not a whole"), (101, 100, "not a whole"), (10**8, 10**8, "over the limit"), (0, 0, "not valid")],
)
def test_an_impossible_header_size_is_refused(tmp_path: Path, length: int, size: int, message: str) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(8 + size)
    with PeakMemory() as memory, pytest.raises(CheckpointError, match=message):
        headers.read_header(path)
    assert memory.growth < 16 * 2**20


@pytest.mark.parametrize("size", [0, 4, 8, 40, 100, 140])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    write(tmp_path, {"a": torch.ones(8), "b": torch.ones(8)})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path)


def test_fuzzed_files_never_do_worse_than_a_typed_error(tmp_path: Path) -> None:
    rng = random.Random(20)
    write(tmp_path, {"layer.weight": torch.ones(4, 3), "layer.bias": torch.zeros(3, dtype=torch.bfloat16)}, note="fuzz")
    path = tmp_path / "model.safetensors"
    good = path.read_bytes()
    length = int.from_bytes(good[:8], "little")
    tokens = [
        b"-1",
        b"9" * 30,
        b"null",
        b"true",
        b'"F32"',
        b"[]",
        b"{}",
        b"1e9",
        b"NaN",
        b"\\u0000",
        b'"',
        b"0,0",
        b"\xff",
        b"",
    ]
    refused = 0
    for _ in range(2000):
        text = bytearray(good[8 : 8 + length])
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            text[at : at + rng.choice((0, 1, 1, 2, 8))] = rng.choice((*tokens, bytes([rng.randrange(256)])))
        size = 8 + len(text) + len(good) - 8 - length
        try:
            headers.parse_header(bytes(text), size=size, where="fuzz")
        except CheckpointError:
            refused += 1
            continue
        path.write_bytes(len(text).to_bytes(8, "little") + bytes(text) + good[8 + length :])
        with open_checkpoint(tmp_path) as checkpoint:
            for ref in checkpoint.tensors.values():
                assert ref.read().nbytes == ref.nbytes <= len(good)
    assert 1000 < refused < 2000


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", "", "a\\b", "c:x", "a\nb"]
)
def test_an_index_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "model", {"w": torch.ones(1)}, "model-00001-of-00001.safetensors")
    write(tmp_path, {"w": torch.ones(1)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(CheckpointError, match="not a plain file name"):
        open_checkpoint(folder)


@pytest.mark.parametrize("content", ['{"weight_map": 3}', '{"weight_map": {"w": 3}}', "{}", "[", "[]"])
def test_a_damaged_index_is_refused(tmp_path: Path, content: str) -> None:
    write(tmp_path, {"w": torch.ones(1)})
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        open_checkpoint(tmp_path)


def test_links_out_of_the_directory_are_refused_but_the_hubs_are_followed(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", {"w": torch.ones(1)})
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").symlink_to(elsewhere / "model.safetensors")
    with pytest.raises(CheckpointError, match="leads out"):
        open_checkpoint(folder)
    whole = tmp_path / "whole"
    whole.symlink_to(elsewhere)
    assert list(open_checkpoint(whole).tensors) == ["w"]

    cached = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    cached.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (elsewhere / name).rename(blobs / name)
        (cached / name).symlink_to(Path("../../blobs") / name)
    assert list(open_checkpoint(cached).tensors) == ["w"]


def test_a_linked_tokenizer_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": "x"}')
    folder = write(tmp_path / "model", {"w": torch.ones(1)})
    (folder / "tokenizer.json").symlink_to(secret)
    (folder / "loop.json").symlink_to(folder / "loop.json")
    files = open_checkpoint(folder).files
    for name in ("tokenizer.json", "loop.json"):
        assert files.path(name) is None
        with pytest.raises(CheckpointError, match="leads out"):
            files.json(name)


class _Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (Path.touch, (self.canary,))


def test_pickle_is_refused_with_the_reason_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    torch.save({"w": torch.ones(2, 2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsafeFormatError, match="a pickle can run code") as caught:
        open_checkpoint(tmp_path)
    assert "--allow-pickle" in (caught.value.hint or "")
    allowed = OpenOptions(allow_pickle=True)
    assert torch.equal(open_checkpoint(tmp_path, allowed).tensors["w"].read(), torch.ones(2, 2))

    canary = tmp_path / "canary"
    torch.save({"w": _Payload(canary)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        open_checkpoint(tmp_path, allowed)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(_Payload(canary)))
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path, allowed)
    assert not canary.exists()


def test_safetensors_win_over_pickle(tmp_path: Path) -> None:
    write(tmp_path, {"safe": torch.ones(1)})
    torch.save({"unsafe": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert list(open_checkpoint(tmp_path, OpenOptions(allow_pickle=True)).tensors) == ["safe"]


@pytest.mark.parametrize("content", [{"w": 3}, {3: torch.ones(1)}, [torch.ones(1)]])
def test_pickled_content_must_be_named_tensors(tmp_path: Path, content: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not a map of names to tensors"):
        open_checkpoint(tmp_path, OpenOptions(allow_pickle=True))


def test_code_that_a_config_names_is_not_imported(tmp_path: Path) -> None:
    write(tmp_path, {"w": torch.ones(1)})
    (tmp_path / "canary_module.py").write_text("raise SystemExit")
    config = CONFIG | {"auto_map": {"AutoConfig": "canary_module.Config"}, "trust_remote_code": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(tmp_path).config["trust_remote_code"] is True
    assert "canary_module" not in sys.modules
