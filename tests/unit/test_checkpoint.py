# SPDX-License-Identifier: Apache-2.0
"""Opening checkpoints: layouts, slices, accompanying files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_files import CONFIG, write, write_raw, write_shards

from tramontane.checkpoint import Checkpoint, MappedFile, open_checkpoint, recognizes
from tramontane.checkpoint import safetensors as headers
from tramontane.errors import CheckpointError
from tramontane.memory import PeakMemory

TINY_STORIES = Path(__file__).parents[3] / "shared/data/models/tinystories-656k-hf"

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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")
def test_pages_that_lie_behind_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size, kept = 4 << 20, 8 << 20
    monkeypatch.setattr("tramontane.checkpoint.mapped._KEPT_BYTES", kept)
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(range(256)) * (8 * size // 256))
    file = MappedFile.at(path)
    expected = 255 * size // 2
    parts = [file.tensor(start * size, torch.uint8, (size,)) for start in range(8)]
    assert resident(path) < kept, "nothing was touched"
    for start in range(8):
        assert int(file.tensor(start * size, torch.uint8, (size,)).sum()) == expected
        assert resident(path) <= kept + size
    assert int(parts[0].sum()) == expected, "what was let go is found again"


def resident(path: Path) -> int:
    """Bytes of the mappings of a file that this process has touched."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) << 10
    return total
