# SPDX-License-Identifier: Apache-2.0
"""Opening checkpoints: layouts, slices, accompanying files, and everything that must be refused."""

from __future__ import annotations

import json
import pickle
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tramontane.checkpoint import Checkpoint, MappedFile, OpenOptions, open_checkpoint, recognizes
from tramontane.checkpoint import safetensors as headers
from tramontane.errors import CheckpointError, UnsafeFormatError
from tramontane.memory import PeakMemory

CONFIG = {"architectures": ["FooForCausalLM"], "hidden_size": 4}
TINY_STORIES = Path(__file__).parents[3] / "shared/data/models/tinystories-656k-hf"


def write(folder: Path, tensors: dict[str, torch.Tensor], name: str = "model.safetensors", **metadata: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors, folder / name, metadata=metadata or None)
    return folder


def write_raw(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def write_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """One tensor a shard, with an index."""
    placed = {}
    for number, (name, tensor) in enumerate(tensors.items(), 1):
        placed[name] = f"model-{number:05}-of-{len(tensors):05}.safetensors"
        write(folder, {name: tensor}, placed[name])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    return folder


# --- reading ---------------------------------------------------------------------------------------------------------

DTYPES = [*headers.DTYPES.values()]


@pytest.mark.parametrize(
    "dtype", [d for d in DTYPES if d not in (torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)], ids=str
)
def test_every_element_type_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = torch.randint(0, 2, (3, 5 * dtype.itemsize), dtype=torch.uint8).view(
        torch.bool if dtype == torch.bool else dtype
    )
    write(tmp_path, {"a": stored, "b": torch.zeros(1, dtype=torch.uint8), "c": stored.clone()})
    with open_checkpoint(tmp_path) as checkpoint:
        for name in ("a", "c"):
            ref = checkpoint.tensors[name]
            assert (ref.dtype, ref.shape, ref.nbytes) == (dtype, tuple(stored.shape), stored.nbytes)
            assert torch.equal(ref.read().view(torch.uint8), stored.view(torch.uint8))


def test_odd_offsets_are_read_right(tmp_path: Path) -> None:
    data = b"\x07" + torch.tensor([1.5, -2.0]).numpy().tobytes()
    header = {
        "byte": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "odd": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    write_raw(tmp_path / "model.safetensors", header, data)
    assert open_checkpoint(tmp_path).tensors["odd"].read().tolist() == [1.5, -2.0]


def test_booleans_of_a_hostile_file_are_zero_or_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    header = {"mask": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}}
    write_raw(tmp_path / "model.safetensors", header, b"\x00\x01\x02\xff")
    read = open_checkpoint(tmp_path).tensors["mask"].read()
    assert read.view(torch.uint8).tolist() == [0, 1, 1, 1]


def test_slices_are_views_of_the_file_and_the_file_cannot_be_changed_through_them(tmp_path: Path) -> None:
    weight = torch.arange(24.0).reshape(4, 6)
    write(tmp_path, {"w": weight})
    ref = open_checkpoint(tmp_path).tensors["w"]
    index = (slice(1, 3), slice(0, 6, 2))
    assert torch.equal(ref.read(index), weight[index])
    assert ref.read(index).untyped_storage().data_ptr() == ref.read().untyped_storage().data_ptr()
    out = torch.empty(2, 3, dtype=torch.bfloat16)
    assert ref.read(index, out) is out
    assert torch.equal(out.float(), weight[index])
    ref.read().zero_()
    assert torch.equal(open_checkpoint(tmp_path).tensors["w"].read(), weight)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_reading_a_mapped_tensor_costs_no_memory(tmp_path: Path) -> None:
    write(tmp_path, {"w": torch.ones(64 * 2**20, dtype=torch.uint8)})
    ref = open_checkpoint(tmp_path).tensors["w"]
    with PeakMemory() as memory:
        assert int(ref.read().max()) == 1
    assert memory.growth < 8 * 2**20


def test_empty_and_scalar_tensors(tmp_path: Path) -> None:
    write(tmp_path, {"none": torch.empty(0, 4), "one": torch.tensor(3.0)})
    tensors = open_checkpoint(tmp_path).tensors
    assert tensors["none"].read().shape == (0, 4)
    assert tensors["one"].read().item() == 3.0


def test_a_closed_checkpoint_says_so_and_what_was_read_stays(tmp_path: Path) -> None:
    write(tmp_path, {"w": torch.ones(3)})
    with open_checkpoint(tmp_path) as checkpoint:
        read = checkpoint.tensors["w"].read()
    assert read.tolist() == [1, 1, 1]
    with pytest.raises(CheckpointError, match="was closed"):
        checkpoint.tensors["w"].read()


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_shards_by_index_by_name_and_by_one_of_them(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2), "b": torch.zeros(3)}
    write_shards(tmp_path, tensors)
    assert sorted(open_checkpoint(tmp_path).tensors) == ["a", "b"]
    assert sorted(open_checkpoint(tmp_path / "model-00002-of-00002.safetensors").tensors) == ["a", "b"]
    (tmp_path / "model.safetensors.index.json").unlink()
    assert sorted(open_checkpoint(tmp_path).tensors) == ["a", "b"]
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 of 2 .*model-00001-of-00002"):
        open_checkpoint(tmp_path)


def test_missing_shards_and_tensors_are_all_named(tmp_path: Path) -> None:
    write_shards(tmp_path, {"a": torch.ones(2), "b": torch.zeros(3), "c": torch.ones(1)})
    (tmp_path / "model-00001-of-00003.safetensors").unlink()
    (tmp_path / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 2 of 3.*00001-of.*00003-of"):
        open_checkpoint(tmp_path)
    write(tmp_path, {"x": torch.ones(1)}, "model-00001-of-00003.safetensors")
    write(tmp_path, {"y": torch.ones(1)}, "model-00003-of-00003.safetensors")
    with pytest.raises(CheckpointError, match=r"do not hold: a \(.*\), c \("):
        open_checkpoint(tmp_path)


def test_the_index_decides_between_two_copies_and_without_it_they_are_refused(tmp_path: Path) -> None:
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    write(tmp_path, {"a": torch.zeros(1)}, names[0])
    write(tmp_path, {"a": torch.ones(1), "b": torch.ones(1)}, names[1])
    with pytest.raises(CheckpointError, match="'a' is stored in two"):
        open_checkpoint(tmp_path)
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert open_checkpoint(tmp_path).tensors["a"].read().item() == 0


def test_consolidated_files_are_ignored_and_alone_refused(tmp_path: Path) -> None:
    write(tmp_path, {"theirs": torch.ones(1)}, "consolidated.safetensors")
    with pytest.raises(CheckpointError, match=r"only as consolidated\.safetensors"):
        open_checkpoint(tmp_path)
    write(tmp_path, {"ours": torch.ones(1)})
    assert list(open_checkpoint(tmp_path).tensors) == ["ours"]


def test_another_name_and_a_single_file(tmp_path: Path) -> None:
    write(tmp_path, {"w": torch.ones(1)}, "diffusion.safetensors")
    assert recognizes(tmp_path)
    assert list(open_checkpoint(tmp_path).tensors) == ["w"]
    assert list(open_checkpoint(tmp_path / "diffusion.safetensors").tensors) == ["w"]


@pytest.mark.parametrize(
    ("content", "message"),
    [({}, "no config.json"), ({"config.json": "{}"}, "no weights"), ({"config.json": "[1]"}, "JSON object")],
)
def test_an_unusable_folder_says_why(tmp_path: Path, content: dict[str, str], message: str) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    assert not recognizes(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        open_checkpoint(tmp_path / "nothing")


def test_metadata_may_tie_tensors(tmp_path: Path) -> None:
    write(
        tmp_path, {"lm_head.weight": torch.ones(2, 2)}, **{"embed.weight": "lm_head.weight", "format": "pt", "x.y": "z"}
    )
    checkpoint = open_checkpoint(tmp_path)
    alias = checkpoint.tensors["embed.weight"]
    assert sorted(checkpoint.tensors) == ["embed.weight", "lm_head.weight"]
    assert alias.alias_of == "lm_head.weight"
    assert torch.equal(alias.read(), torch.ones(2, 2))
    assert checkpoint.nbytes == 16


@pytest.mark.skipif(not TINY_STORIES.is_dir(), reason="the shared test data are not beside the checkout")
def test_a_real_checkpoint() -> None:
    with open_checkpoint(TINY_STORIES) as checkpoint:
        assert checkpoint.architectures == ("LlamaForCausalLM",)
        assert checkpoint.generation_config["eos_token_id"] == 2
        tied = [checkpoint.tensors[name].read() for name in ("model.embed_tokens.weight", "lm_head.weight")]
        assert torch.equal(*tied)
        assert checkpoint.nbytes == 2_624_000


# --- what must be refused --------------------------------------------------------------------------------------------

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


# --- accompanying files ----------------------------------------------------------------------------------------------


def test_accompanying_files_are_read_lazily_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"w": torch.ones(1)})
    (tmp_path / "tokenizer.json").write_text("{")
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    files = open_checkpoint(tmp_path).files
    assert files.text("nothing") is None
    assert files.path("tokenizer.json") == tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match="not valid JSON"):
        files.json("tokenizer.json")
    with pytest.raises(CheckpointError, match="not UTF-8"):
        files.text("bad.txt")
    monkeypatch.setattr("tramontane.checkpoint.files.MAX_FILE_BYTES", 0)
    with pytest.raises(CheckpointError, match="over the limit"):
        files.bytes("tokenizer.json")


def test_wrong_architectures_are_an_error(tmp_path: Path) -> None:
    checkpoint = Checkpoint(path=tmp_path, config={"architectures": "Foo"}, tensors={})
    with pytest.raises(CheckpointError, match="not a list of names"):
        _ = checkpoint.architectures
    assert Checkpoint(path=tmp_path, config={}, tensors={}).architectures == ()


def test_a_file_that_shrinks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(100))
    file = MappedFile.at(path)
    path.write_bytes(bytes(10))
    with pytest.raises(CheckpointError, match="became shorter"):
        file.tensor(0, torch.uint8, (100,))
    with pytest.raises(CheckpointError, match="past the end"):
        file.tensor(96, torch.float32, (2,))
    with pytest.raises(CheckpointError, match="cannot read"):
        MappedFile.at(tmp_path / "nothing")
