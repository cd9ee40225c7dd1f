# SPDX-License-Identifier: Apache-2.0
"""The conformance kit as third parties run it: given a distribution, it passes what is sound and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = """
from tramontane import hookimpl
from tramontane.records import ArchitectureSpec

@hookimpl
def tramontane_architectures():
    yield ArchitectureSpec(name="foo", classes=("FooForCausalLM",), config="tramontane_arch_foo.model:Config",
                           model="tramontane_arch_foo.model:Model", samples="tramontane_arch_foo.model:samples")
"""
MODEL = """
from attrs import frozen
from tramontane import nn
from tramontane.config import RopeConfig, rope_field
from tramontane.testing.samples import sample

@frozen(kw_only=True)
class Config:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    hidden_act: str
    rope: RopeConfig = rope_field()

class Block(nn.Module):
    def __init__(self, c, b):
        self.attn_norm = b.rms_norm("norm1", c.hidden_size, 1e-5)
        self.attn = b.attention("attn", c.hidden_size, nn.Heads(4, 2, 16), rope=c.rope, window=9)
        self.mlp_norm = b.rms_norm("norm2", c.hidden_size, 1e-5)
        self.mlp = b.gated_mlp("mlp", c.hidden_size, c.intermediate_size, act=c.hidden_act)

    def forward(self, x, residual, ctx):
        h, residual = self.attn_norm(x, residual)
        h = self.attn(h, ctx)
        {fault}
        h, residual = self.mlp_norm(h, residual)
        return self.mlp(h), residual

class Model(nn.Decoder):
    def __init__(self, c, b):
        embedding = b.embedding("embed", c.vocab_size, c.hidden_size)
        super().__init__(embedding, [Block(c, b.at(f"layers.{{i}}")) for i in range(2)],
                         b.rms_norm("norm", c.hidden_size, 1e-5), b.head("lm_head", c.hidden_size, c.vocab_size))

def samples():
    return {{"only": sample("FooForCausalLM", "foo", hidden_act="silu")}}
"""
ENTRY_POINTS = """
[tramontane.plugins]
foo = tramontane_arch_foo.plugin

[tramontane.plugin_api]
1 = tramontane_arch_foo.plugin
"""
NOTHING = "pass"
MIXES_TOKENS = "h = h + 0.1 * h.mean(0, keepdim=True)"
ASKS_THE_DEVICE = "h = h if h.sum().item() < 1e9 else h * 0"


def kit(folder: Path, fault: str, *arguments: str, exceptions: str = "") -> tuple[int, str]:
    """Write a plugin that looks installed, and run the kit on it in a process of its own."""
    package, info = folder / "tramontane_arch_foo", folder / "foo_plugin-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text('"""Foo."""\n', encoding="utf-8")
    (package / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    (package / "model.py").write_text(MODEL.format(fault=fault), encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foo-plugin\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    (folder / "pyproject.toml").write_text(f'[project]\nname = "foo-plugin"\n{exceptions}', encoding="utf-8")
    run = ("--pyargs", "tramontane.testing.conformance", "--tramontane-target", "foo-plugin", "-q", "-rA")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *run, "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def outcomes(output: str, word: str) -> set[str]:
    """The checks that pytest's summary reports with a word, such as FAILED."""
    lines = [line.split()[1] for line in output.splitlines() if line.startswith(f"{word} ") and "[" in line]
    return {line.split("[")[1].rstrip("]").split("-")[-1] for line in lines}


def test_a_sound_plugin_passes_without_any_other_implementation(tmp_path: Path) -> None:
    (tmp_path / "transformers.py").write_text('raise ImportError("not here")\n', encoding="utf-8")
    code, output = kit(tmp_path, NOTHING)
    assert code == 0, output
    assert {"chunked", "captured", "preempted", "unknown_rope_is_refused"} <= outcomes(output, "PASSED"), output
    assert "skipped" not in output.splitlines()[-1]


@pytest.mark.full
def test_a_model_that_mixes_the_tokens_of_a_step_fails(tmp_path: Path) -> None:
    code, output = kit(tmp_path, MIXES_TOKENS)
    assert code == 1, output
    wrong = {"chunked", "batched", "prefix_reuse", "preempted", "bit_for_bit"}
    assert wrong <= outcomes(output, "FAILED"), output
    assert {"captured", "block_sizes", "like_reference"} <= outcomes(output, "PASSED"), "capture replays the fault"


@pytest.mark.full
def test_a_model_that_asks_the_device_fails_unless_it_is_excused(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    code, output = kit(one, ASKS_THE_DEVICE)
    assert code == 1, output
    assert outcomes(output, "FAILED") == {"captured"}, output
    reason = '[tool.tramontane.conformance.exceptions]\n"foo-*-captured" = "the device is asked"\n'
    code, output = kit(two, ASKS_THE_DEVICE, exceptions=reason)
    assert code == 0, output
    assert "the device is asked" in output


def test_a_target_that_is_not_installed_is_said(tmp_path: Path) -> None:
    code, output = kit(tmp_path, NOTHING, "--tramontane-target", "no-such-plugin", "--co")
    assert code != 0
    assert "no-such-plugin is not installed" in output


@pytest.mark.full
def test_an_excuse_for_what_works_is_a_failure(tmp_path: Path) -> None:
    reason = '[tool.tramontane.conformance.exceptions]\n"foo-*-chunked" = "it never worked"\n'
    code, output = kit(tmp_path, NOTHING, "-k", "chunked", exceptions=reason)
    assert code == 1, output
    assert "XPASS(strict)" in output
