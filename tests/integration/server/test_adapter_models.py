# SPDX-License-Identifier: Apache-2.0
"""Adapters as models: listed with their parent, asked by name, loaded over HTTP from allowed folders alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from serving import demo
from starlette.testclient import TestClient

from tramontane.errors import ConfigError, UnknownNameError
from tramontane.host import Host
from tramontane_frontend_http import ServerSettings, make_app

pytest.importorskip("tramontane_adapter_lora", reason="reads the adapters")
TELL = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0}


def write_adapter(folder: Path, seed: int) -> Path:
    """An adapter of the demo model that changes what it says."""
    shape = json.loads((demo.FOLDER / "config.json").read_text())
    draw, width = torch.Generator().manual_seed(seed), shape["hidden_size"]
    tensors = {}
    for layer in range(shape["num_hidden_layers"]):
        at = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
        tensors[f"{at}.lora_A.weight"] = torch.randn(4, width, generator=draw) / width**0.5
        tensors[f"{at}.lora_B.weight"] = torch.randn(width, 4, generator=draw)
    folder.mkdir(parents=True)
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["o_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture(
    scope="module", params=[False, pytest.param(True, marks=pytest.mark.full)], ids=["here", "apart"]
)  # fmt: skip
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("adapters")
    write_adapter(folder / "allowed" / "poems", seed=2)
    write_adapter(folder / "outside", seed=3)
    (folder / "allowed" / "link").symlink_to(folder / "outside")
    host = Host(apart=request.param)
    host.add("base", "demo", num_blocks=200, adapters={"sql": str(write_adapter(folder / "sql", seed=1))})
    settings = ServerSettings(adapter_folders=(folder / "allowed",), admin_keys=("root",))
    with TestClient(make_app(host, settings), base_url="http://127.0.0.1", headers={"x-api-key": "root"}) as made:  # type: ignore[arg-type]
        made.host, made.folder = host, folder  # type: ignore[attr-defined]
        yield made
    host.close()


def post(client: TestClient, path: str, status: int = 200, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def told(client: TestClient, model: str) -> str:
    answer = post(client, "/v1/completions", model=model, **TELL)
    assert answer["model"] == model
    text: str = answer["choices"][0]["text"]
    return text


def parents(client: TestClient) -> dict[str, str | None]:
    return {one["id"]: one["parent"] for one in client.get("/v1/models").json()["data"]}


def test_adapters_are_models_with_a_parent(client: TestClient) -> None:
    assert parents(client) == {"base": None, "sql": "base"}, "known before anything is loaded"
    base, sql = told(client, "base"), told(client, "sql")
    assert base != sql
    beside = post(client, "/v1/completions", model="base", adapter="sql", **TELL)
    assert beside["choices"][0]["text"] == sql, "named beside its model it is the same"
    assert told(client, "base") == base
    assert client.get("/v1/models/sql").json()["status"] == "ready"


def test_an_adapter_is_loaded_replaced_and_forgotten(client: TestClient) -> None:
    given = {"lora_name": "verse", "lora_path": "poems"}
    assert post(client, "/v1/load_lora_adapter", **given)["parent"] == "base"
    verse = told(client, "verse")
    assert verse not in (told(client, "base"), told(client, "sql"))
    assert post(client, "/v1/load_lora_adapter", 400, **given)["error"]["param"] == "lora_name"
    absolute = str(client.folder / "allowed" / "poems")  # type: ignore[attr-defined]
    post(client, "/v1/load_lora_adapter", lora_name="verse", lora_path=absolute, load_inplace=True)
    assert told(client, "verse") == verse
    assert parents(client) == {"base": None, "sql": "base", "verse": "base"}
    assert post(client, "/v1/unload_lora_adapter", lora_name="verse")["deleted"]
    post(client, "/v1/completions", 404, model="verse", **TELL)
    post(client, "/v1/unload_lora_adapter", 404, lora_name="verse")
    assert parents(client) == {"base": None, "sql": "base"}


@pytest.mark.parametrize(
    ("body", "status"),
    [({"lora_path": "../outside"}, 400), ({"lora_path": "/etc"}, 400), ({"lora_path": "link"}, 400),
     ({"lora_path": "."}, 400), ({"lora_path": "nothing"}, 400), ({"lora_path": "poems\0"}, 400),
     ({"lora_path": "poems/adapter_config.json"}, 400), ({"lora_name": "a/b"}, 400), ({"lora_name": "base"}, 400),
     ({"lora_name": "default"}, 400), ({"base_model_name": "nobody"}, 404), ({"lora_path": 5}, 400)],
)  # fmt: skip
def test_nothing_but_the_allowed_folders_is_read(client: TestClient, body: dict[str, Any], status: int) -> None:
    given = {"lora_name": "bad", "lora_path": "poems", **body}
    error = post(client, "/v1/load_lora_adapter", status, **given)["error"]
    assert str(client.folder) not in error["message"]  # type: ignore[attr-defined]
    assert "bad" not in parents(client)


def test_only_admins_load_and_only_where_folders_were_named(client: TestClient) -> None:
    given = {"lora_name": "x", "lora_path": "poems"}
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        assert client.post(path, json=given, headers={"x-api-key": "user"}).status_code == 403
    closed = TestClient(make_app(client.host), base_url="http://127.0.0.1")  # type: ignore[arg-type,attr-defined]
    assert closed.post("/v1/load_lora_adapter", json=given).status_code == 403


def test_names_of_models_and_adapters_differ() -> None:
    host = Host()
    host.add("a", "demo", adapters={"one": "x"})
    host.add("b", "demo", adapters={"two": "x"})
    for name, settings in [("one", {}), ("c", {"adapters": {"two": "y"}}), ("d", {"adapters": {"d": "y"}})]:
        with pytest.raises(ConfigError, match=r"taken|its own name"):
            host.add(name, "demo", **settings)
    with pytest.raises(ConfigError, match="name of a model"):
        host.alias("one", "b")
    with pytest.raises(UnknownNameError, match="twoo"):
        host.model("twoo")
