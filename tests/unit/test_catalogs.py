# SPDX-License-Identifier: Apache-2.0
"""Catalogs: look-ups that hit, miss and conflict; order; generations; late plugins; what the environment says."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tramontane import hookimpl
from tramontane.errors import ConflictError, PluginError, UnknownNameError
from tramontane.plugins import PluginId, Plugins, Settings, Status, discovery, installed, using
from tramontane.records import ArchitectureSpec, LoaderSpec
from tramontane.testing.pytest_plugin import SealPlugins
from tramontane.testing.sealed import sealed


def loader(name: str, priority: int = 0) -> LoaderSpec:
    return LoaderSpec(name=name, open="json:load", detect="json:load", priority=priority)


def plugin(name: str, *loaders: LoaderSpec, architectures: tuple[ArchitectureSpec, ...] = ()) -> ModuleType:
    @hookimpl
    def tramontane_loaders() -> list[LoaderSpec]:
        return list(loaders)

    @hookimpl
    def tramontane_architectures() -> tuple[ArchitectureSpec, ...]:
        return architectures

    module = ModuleType(name)
    vars(module).update(tramontane_loaders=tramontane_loaders, tramontane_architectures=tramontane_architectures)
    return module


def test_iteration_is_by_priority_then_by_name() -> None:
    loaders = sealed(
        plugin("p", loader("b"), loader("a"), loader("z", 5), loader("y", -5)), core=False
    ).catalogs.loaders
    assert loaders.names() == ("z", "a", "b", "y")
    assert len(loaders) == 4
    assert "z" in loaders
    assert "x" not in loaders


def test_records_know_their_plugin() -> None:
    spec = sealed(plugin("mine", loader("a"))).catalogs.loaders.get("a")
    assert spec.plugin == "mine"
    assert spec.origin == " of plugin mine"


def test_a_miss_names_what_is_near() -> None:
    loaders = sealed(plugin("p", loader("SafeTensors2"))).catalogs.loaders
    with pytest.raises(UnknownNameError) as caught:
        loaders.get("safetensor")
    assert caught.value.message == "there is no loader 'safetensor'; did you mean safetensors or SafeTensors2?"
    assert loaders.find("safetensor") is None


def test_a_miss_says_what_to_install_where_that_is_known(seal_plugins: SealPlugins) -> None:
    architectures = seal_plugins().catalogs.architectures
    with pytest.raises(UnknownNameError) as caught:
        architectures.get("LlamaForCausalLM")
    assert caught.value.hint == "pip install tramontane-arch-llama"
    with pytest.raises(UnknownNameError) as caught:
        architectures.get("NobodyForCausalLM")
    assert caught.value.hint == "`tramontane plugins` lists what is installed"


def test_a_miss_says_that_the_plugin_is_there_but_off() -> None:
    candidates = [found for found in discovery.installed() if found.id.distribution == "tramontane-arch-llama"]
    if not candidates:
        pytest.skip("tramontane-arch-llama is not installed")
    architectures = Plugins.load(candidates, Settings(block=("arch-llama",))).catalogs.architectures
    with pytest.raises(UnknownNameError) as caught:
        architectures.get("LlamaForCausalLM")
    assert caught.value.hint is not None
    assert "is off: turned off by TRAMONTANE_PLUGINS_OFF" in caught.value.hint


def test_a_class_that_two_architectures_claim() -> None:
    def architecture(name: str) -> ArchitectureSpec:
        return ArchitectureSpec(name=name, classes=("FooForCausalLM",), config="a:B", model="a:C")

    plugins = (
        plugin("one", architectures=(architecture("foo"),)),
        plugin("two", architectures=(architecture("bar"),)),
    )
    architectures = sealed(*plugins).catalogs.architectures
    with pytest.raises(ConflictError, match="'FooForCausalLM' is claimed by one and by two"):
        architectures.get("FooForCausalLM")
    assert architectures.get("foo").name == "foo"
    assert architectures.names() == ("bar", "foo"), "only the class is in conflict"
    remedy = "uninstall one of them, or decide with TRAMONTANE_PREFER=one or TRAMONTANE_PREFER=two"
    assert architectures.trouble() == f"architecture 'FooForCausalLM' is claimed by one and by two: {remedy}"
    decided = sealed(*plugins, settings=Settings(prefer=("two",))).catalogs.architectures
    assert decided.get("FooForCausalLM").name == "bar"


def test_a_preference_that_fits_several_decides_nothing() -> None:
    plugins = (plugin("my-one", loader("x")), plugin("my-two", loader("x")))
    with pytest.raises(ConflictError):
        sealed(*plugins, settings=Settings(prefer=("my-*",))).catalogs.loaders.get("x")


def test_late_plugins_make_a_new_generation() -> None:
    first = sealed(plugin("early", loader("a")))
    second = first.extended([plugin("late", loader("b"))])
    assert (first.catalogs.generation, second.catalogs.generation) == (1, 2)
    assert "b" not in first.catalogs.loaders
    assert {"a", "b", "safetensors"} <= set(second.catalogs.loaders.keys())
    assert second.extended() is second
    assert second.extended([plugin("late", loader("b"))]) is second, "the same plugin again changes nothing"


def test_a_late_plugin_that_fails_is_an_error() -> None:
    first = sealed()
    with pytest.raises(PluginError, match=r"plugin late failed to load: .*gives two loaders"):
        first.extended([plugin("late", loader("b"), loader("b"))])
    assert first.extended([plugin("late", loader("b"))]).catalogs.loaders.get("b").name == "b"


def test_a_single_file_is_a_plugin(tmp_path: Path) -> None:
    file = tmp_path / "one_file_plugin.py"
    file.write_text(
        "from tramontane import hookimpl\nfrom tramontane.records import LoaderSpec\n"
        "def open(source, options): return source\n"
        "@hookimpl\ndef tramontane_loaders():\n"
        "    return LoaderSpec(name='single', open='one_file_plugin:open', detect='one_file_plugin:open')\n",
        encoding="utf-8",
    )
    spec = sealed().extended(files=[file]).catalogs.loaders.get("single")
    assert spec.load("open")("here", {}) == "here"
    assert spec.plugin == str(file)


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("json.py", "", "a module 'json' exists already"),
        ("not-a-name.py", "", "is named like a Python module"),
        ("plugin.txt", "", "is named like a Python module"),
        ("broken_late_file.py", "raise SystemExit(1)", "SystemExit"),
    ],
)
def test_a_file_that_is_no_plugin(tmp_path: Path, name: str, code: str, said: str) -> None:
    file = tmp_path / name
    file.write_text(code, encoding="utf-8")
    for _ in range(2):  # the second time, nothing is left of the first
        with pytest.raises(PluginError, match=said):
            sealed().extended(files=[file])


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(PluginError, match=r"there is no file no_such_plugin\.py"):
        sealed().extended(files=["no_such_plugin.py"])


def test_using_replaces_the_process_plugins() -> None:
    mine = sealed()
    with using(mine):
        assert installed() is mine
        with using(sealed()) as inner:
            assert installed() is inner
        assert installed() is mine


def test_the_fixture_seals_the_process(seal_plugins: SealPlugins) -> None:
    assert [report.id.name for report in installed().reports] == ["core"]
    assert installed() is not seal_plugins(plugin("p", loader("a")))
    assert [report.id.name for report in installed().reports] == ["core", "p"]


def test_settings_from_the_environment() -> None:
    assert Settings.from_environment({}) == Settings()
    settings = Settings.from_environment(
        {
            "TRAMONTANE_PLUGINS": " arch-llama, my_plugin ,",
            "TRAMONTANE_PLUGINS_OFF": "arch-*",
            "TRAMONTANE_PREFER": "a,b",
            "TRAMONTANE_STRICT_PLUGINS": "1",
        }
    )
    assert settings == Settings(allow=("arch-llama", "my_plugin"), block=("arch-*",), prefer=("a", "b"), strict=True)
    assert Settings.from_environment({"TRAMONTANE_PLUGINS": ""}).allow == ()
    assert not Settings.from_environment({"TRAMONTANE_STRICT_PLUGINS": "0"}).strict


def test_who_is_off_and_why() -> None:
    llama = PluginId("arch-llama", "tramontane-arch-llama", "1.0")
    assert Settings().why_off(llama) is None
    assert Settings(allow=("tramontane_arch_llama",)).why_off(llama) is None
    assert Settings(allow=("arch-*",), block=("ARCH.llama",)).why_off(llama) == "turned off by TRAMONTANE_PLUGINS_OFF"
    assert Settings(allow=()).why_off(llama) == "not named in TRAMONTANE_PLUGINS"


def test_statuses_are_what_the_report_prints() -> None:
    row = sealed().reports[0]
    assert row.status is Status.OK
    assert row.as_json()["status"] == "ok"
    assert row.ms > 0
