# SPDX-License-Identifier: Apache-2.0
"""``--device-map auto``: which devices a model gets, by memory alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tramontane.errors import OutOfMemoryError
from tramontane.load import auto_map
from tramontane.load.auto_map import RESERVE, Demand, Room, choose_map, rooms
from tramontane.memory import available_memory

GIB = 1 << 30


def room(device: str, gib: float) -> Room:
    """A device with so much for the model, after what is kept free."""
    usable = int(gib * GIB) + (0 if device == "cpu" else RESERVE)
    return Room(device, int(usable / auto_map.USABLE) + 2)


def shares(demand: Demand, *given: Room) -> list[int]:
    found = choose_map(demand, given)
    assert [device for device, _ in found] == [one.device for one in given][: len(found)]
    assert sum(count for _, count in found) == len(demand.layers)
    return [count for _, count in found]


EIGHT = Demand([GIB] * 8)


def test_one_card_that_holds_it_is_enough() -> None:
    assert shares(EIGHT, room("cuda:0", 8), room("cuda:1", 8), room("cpu", 64)) == [8]


def test_as_few_cards_as_hold_it_are_filled_alike() -> None:
    three = [room(f"cuda:{i}", 6) for i in range(3)]
    assert shares(EIGHT, *three, room("cpu", 64)) == [4, 4]
    assert shares(EIGHT, room("cuda:1", 9 * 0.7), room("cuda:0", 3), room("cpu", 64)) == [5, 3]


def test_what_no_card_holds_lies_on_the_host() -> None:
    assert shares(EIGHT, room("cuda:0", 3.5), room("cuda:1", 2.5), room("cpu", 64)) == [3, 2, 3]
    assert choose_map(EIGHT, [room("cpu", 64)]) == [("cpu", 8)]
    assert choose_map(EIGHT, [room("cuda:0", 0.5), room("cpu", 64)]) == [("cuda:0", 0), ("cpu", 8)]


def test_embedding_head_and_step_are_counted_where_they_lie() -> None:
    heavy = Demand([GIB] * 8, first=2 * GIB, last=GIB, step=GIB)
    assert shares(heavy, room("cuda:0", 12), room("cpu", 64)) == [8]
    assert shares(heavy, room("cuda:0", 11.5), room("cpu", 64)) == [7, 1]  # one layer less, and the head stays
    assert shares(heavy, room("cuda:0", 7), room("cuda:1", 7), room("cpu", 64)) == [4, 4]


def test_layers_that_share_a_cache_stay_together() -> None:
    joined = Demand([GIB] * 8, joined=frozenset({3, 4, 5}))
    assert shares(joined, room("cuda:0", 4.5), room("cuda:1", 6.5), room("cpu", 64)) == [2, 6]
    assert shares(joined, room("cuda:0", 5), room("cpu", 64)) == [2, 6]


def test_too_little_everywhere_is_said_with_the_sizes() -> None:
    with pytest.raises(OutOfMemoryError, match=r"needs 8\.00 GiB.*of cuda:0, .*of cpu"):
        choose_map(EIGHT, [room("cuda:0", 2), room("cpu", 3)])


def test_the_device_says_which_cards_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [3 * GIB, 9 * GIB]
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(free))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda card: (free[card], 80 * GIB))
    assert [one.device for one in rooms("auto")] == ["cuda:1", "cuda:0", "cpu"]
    assert [one.device for one in rooms("cuda:0")] == ["cuda:0", "cpu"]
    assert [one.device for one in rooms("cpu")] == ["cpu"]
    assert rooms("cpu")[0].free == pytest.approx(available_memory(), rel=0.2)


def test_a_model_is_planned_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake cards, whose layers the host then runs: the map itself is what the planner made of real sizes."""
    from tramontane.load import LoadOptions, open_reference
    from tramontane.plugins import installed
    from tramontane.testing.checkpoints import write_random

    config = {
        "architectures": ["Qwen3ForCausalLM"], "vocab_size": 96, "hidden_size": 64, "intermediate_size": 256,
        "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 64, "tie_word_embeddings": True,
    }  # fmt: skip
    path, plugins = write_random(tmp_path / "model", config), installed()
    assert auto_map.automatic(open_reference(str(path), LoadOptions(), plugins), LoadOptions(
        device="cpu", device_map="auto"), plugins).device_map is None  # fmt: skip
    monkeypatch.setattr(auto_map, "rooms", lambda asked: [Room("cuda:0", 64 << 30), Room("cpu", 64 << 30)])
    assert auto_map.automatic(open_reference(str(path), LoadOptions(), plugins), LoadOptions(
        backend="reference-invariant", device_map="auto"), plugins).device == "cpu"  # fmt: skip
    monkeypatch.setattr(auto_map, "choose_backend", lambda options, plugins: _host())
    monkeypatch.setattr(auto_map, "RESERVE", 0)
    seen: list[Demand] = []

    def choose(demand: Demand, given: list[Room]) -> list[tuple[str, int]]:
        seen.append(demand)
        layer = demand.layers[0]
        half = int((demand.step + demand.last + 3.5 * layer) / auto_map.USABLE)
        return choose_map(demand, [Room("cuda:0", half), Room("cuda:1", half), Room("cpu", 0)])

    monkeypatch.setattr(auto_map, "choose_map", choose)
    found = auto_map.automatic(open_reference(str(path), LoadOptions(), plugins), LoadOptions(
        device_map="auto"), plugins)  # fmt: skip
    assert found.device_map == "cuda:0=3,cuda:1=3"
    (demand,) = seen
    weights = 64 * (4 + 2 + 2 + 4) * 16 + 3 * 64 * 256
    assert demand.layers[0] == (weights + 2 * 64 + 2 * 16) * 4 + 64 * 2 * 2 * 16 * 4


def _host() -> object:
    from tramontane.backends.torch import TorchBackend

    return TorchBackend()
