# SPDX-License-Identifier: Apache-2.0
"""Records: their form is checked when they are made, their lazy strings when they are asked for."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from pathlib import Path
from textwrap import dedent

import attrs
import pytest

from tramontane.errors import PluginError
from tramontane.plugins.catalogs import KINDS
from tramontane.records import (
    ArchitectureSpec,
    BackendSpec,
    CommandSpec,
    FrontendSpec,
    LoaderSpec,
    QuantizerSpec,
    Record,
    resolve,
)


def architecture(**changes: object) -> ArchitectureSpec:
    facts = {"name": "foo", "classes": ("FooForCausalLM", "FooModel"), "config": "foo:Config", "model": "foo:Foo"}
    return ArchitectureSpec(**{**facts, **changes})  # type: ignore[arg-type]


def test_an_architecture_is_found_by_name_class_and_dialect() -> None:
    spec = architecture(dialects={"gguf": "foo:NAMES", "gguf:foo2": "foo:NAMES", "mlx": "foo:MLX"})
    assert spec.keys == ("foo", "FooForCausalLM", "FooModel", "gguf:foo", "gguf:foo2", "mlx:foo")


def test_a_quantization_type_is_found_by_its_aliases() -> None:
    assert QuantizerSpec(name="q4k", make="a:b", aliases=("q4_k", "q4k")).keys == ("q4k", "q4_k")


def test_records_are_frozen_and_hashable() -> None:
    spec = architecture(dialects={"gguf": "foo:NAMES"})
    assert hash(spec) == hash(architecture(dialects={"gguf": "foo:NAMES"}))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        spec.name = "bar"  # type: ignore[misc]
    with pytest.raises(TypeError):
        spec.dialects["gguf"] = "foo:OTHER"  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "name must be letters"),
        ({"name": "two words"}, "name must be letters"),
        ({"config": "foo.Config"}, "config must be a lazy string 'package.module:Name', got 'foo.Config'"),
        ({"config": "foo:Config()"}, "config must be a lazy string"),
        ({"model": None}, "model must be a lazy string"),
        ({"weight_map": "foo"}, "weight_map must be a lazy string"),
        ({"dialects": {"gguf": "foo"}}, "dialects must be a lazy string"),
        ({"classes": "FooForCausalLM"}, "classes must be a tuple of non-empty strings, got 'FooForCausalLM'"),
        ({"classes": ["FooForCausalLM", ""]}, "classes must be a tuple of non-empty strings"),
        ({"classes": [1]}, "classes must be a tuple of non-empty strings"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(PluginError) as caught:
        architecture(**changes)
    assert "ArchitectureSpec" in caught.value.message
    assert said in caught.value.message


@pytest.mark.parametrize(
    "facts",
    [{}, {"app": "a:b"}, {"app": "a:b", "mount": "v1"}, {"run": "a:b", "mount": "/v1"}, {"app": "a:b", "run": "a:b"}],
)
def test_a_frontend_has_either_an_app_and_a_mount_or_a_loop(facts: dict[str, str]) -> None:
    with pytest.raises(PluginError, match="FrontendSpec 'web'"):
        FrontendSpec(name="web", **facts)
    assert FrontendSpec(name="web", app="a:b", mount="/v1").run is None


def test_a_command_needs_one_line_of_help() -> None:
    for text in ("", "  ", "two\nlines"):
        with pytest.raises(PluginError, match="help must be one line of text"):
            CommandSpec(name="x", command="a:b", help=text)


def test_resolve_imports_what_is_named() -> None:
    assert resolve("json:loads") is json.loads
    assert resolve("json:JSONDecoder.decode") is json.JSONDecoder.decode


@pytest.mark.parametrize(
    ("lazy", "said"),
    [
        ("json", "not of the form"),
        ("json:nothing", "AttributeError: module 'json' has no attribute 'nothing'"),
        ("no_such_module:x", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("leaves:x", "SystemExit: 4"),
    ],
)
def test_a_reference_that_cannot_be_resolved_names_record_plugin_and_reason(
    lazy: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(4)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    record = LoaderSpec(name="odd", open="a:b", detect="a:b", plugin="arch-foo (foo 1.0)")
    with pytest.raises(PluginError) as caught:
        resolve(lazy, record)
    assert "loader 'odd' of plugin arch-foo (foo 1.0)" in caught.value.message
    assert said in caught.value.message
    assert "leaves" not in sys.modules


def test_load_resolves_a_field() -> None:
    spec = architecture(config="json:JSONDecoder", dialects={"gguf": "json:loads"})
    assert spec.load("config") is json.JSONDecoder
    assert spec.load("dialects", "gguf") is json.loads
    with pytest.raises(PluginError, match="architecture 'foo' has no weight_map"):
        spec.load("weight_map")
    with pytest.raises(PluginError, match=r"has no dialects\['mlx'\]"):
        spec.load("dialects", "mlx")


def test_ctrl_c_passes_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        resolve("interrupted:x")


@pytest.mark.parametrize("kind", [Record, *KINDS.values()])
def test_every_field_is_documented(kind: type[Record]) -> None:
    (body,) = ast.parse(dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) != "kind":
            assert isinstance(following, ast.Expr), f"{kind.__name__}.{ast.unparse(statement.target)} says nothing"


def test_kinds_are_told_apart() -> None:
    words = [kind.kind for kind in KINDS.values()]
    assert len(set(words)) == len(words)
    assert BackendSpec(name="x", backend="a:b").kind == "backend"
