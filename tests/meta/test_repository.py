# SPDX-License-Identifier: Apache-2.0
"""Rules of the repository: who may import whom, what follows from ``plugins/``, licences, generated files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tramontane

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path.parent for path in ROOT.glob("plugins/*/*/pyproject.toml"))
KINDS = {
    "architectures": "arch",
    "quant": "quant",
    "backends": "backend",
    "adapters": "adapter",
    "tools": "tools",
    "frontends": "frontend",
    "loaders": "loader",
}
LAZY = re.compile(r"(tramontane_\w+)(\.\w+)*:\w+")


def plugin_id(folder: Path) -> str:
    return folder.relative_to(ROOT / "plugins").as_posix()


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def package(folder: Path) -> str:
    name: str = project(folder)["project"]["name"]
    return name.replace("-", "_")


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository, those not committed yet included, those that git ignores not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def imports(file: Path) -> Iterator[str]:
    """Dotted names that a file imports, ``from a import b`` as ``a.b``; lazy strings count too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and LAZY.fullmatch(node.value):
            yield node.value.replace(":", ".")


# --- plugins ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS, ids=plugin_id)
def test_a_plugin_imports_neither_another_plugin_nor_a_private_name(folder: Path) -> None:
    own = package(folder)
    wrong = []
    for file in tracked(f"{folder.relative_to(ROOT)}/*.py"):
        for name in imports(file):
            first, *rest = name.split(".")
            if first.startswith("tramontane_") and first != own:
                wrong.append(f"{file.relative_to(ROOT)}: {name} is another plugin's")
            if first == "tramontane" and any(part.startswith("_") and not part.startswith("__") for part in rest):
                wrong.append(f"{file.relative_to(ROOT)}: {name} is private to the core")
    assert not wrong, "\n".join(wrong)


def test_the_core_imports_no_plugin() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in tracked("core/*.py")
        for name in imports(file)
        if name.startswith("tramontane_")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_kernel_knows_nothing_of_what_stands_on_it() -> None:
    kernel = ("errors", "hooks", "records", "plugins")
    files = [file for name in kernel for file in tracked(f"core/tramontane/{name}.py", f"core/tramontane/{name}/*.py")]
    assert len(files) > len(kernel)
    wrong = []
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node))]
        for node in ast.walk(tree):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("tramontane.") and module.split(".")[1] not in kernel:
                wrong.append(f"{file.relative_to(ROOT)}: {module}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", FOLDERS, ids=plugin_id)
def test_a_plugin_is_packaged_like_the_others(folder: Path) -> None:
    content = project(folder)
    about, own = content["project"], package(folder)
    assert about["name"] == f"tramontane-{KINDS[folder.parent.name]}-{folder.name.replace('_', '-')}"
    assert about["version"] == tramontane.__version__, "first-party packages are released together"
    assert about["license"] == "Apache-2.0"
    assert about["requires-python"] == ">=3.11"
    core = [line for line in about["dependencies"] if re.match(r"tramontane\b(?!-)", line)]
    assert len(core) == 1
    assert re.fullmatch(r"tramontane>=\d+\.\d+", core[0]), "no upper bound: the plugin API decides"
    assert about["entry-points"]["tramontane.plugins"] == {about["name"].removeprefix("tramontane-"): f"{own}.plugin"}
    assert about["entry-points"]["tramontane.plugin_api"] == {str(tramontane.PLUGIN_API): f"{own}.plugin"}
    for name in ("README.md", "LICENSE", f"{own}/__init__.py", f"{own}/plugin.py", f"{own}/py.typed"):
        assert (folder / name).is_file(), name


@pytest.mark.parametrize("folder", FOLDERS, ids=plugin_id)
def test_setuptools_plugins_install_as_a_path(folder: Path) -> None:
    """Without an explicit package-dir an editable install adds an import hook, which every start pays."""
    content = project(folder)
    if content["build-system"]["build-backend"] != "setuptools.build_meta":
        pytest.skip("built by another backend")
    setuptools = content["tool"]["setuptools"]
    assert setuptools["package-dir"] == {"": "."}
    assert package(folder) in setuptools["packages"]["find"]["include"]


def test_versions_are_final() -> None:
    """A range such as ``>=0.1`` would reject a ``.dev`` version."""
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?", tramontane.__version__)


# --- what is generated ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["sync_plugins.py", "hook_pages.py"])
def test_generated_files_are_up_to_date(script: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / script), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_extras_and_requirement_files_name_every_plugin() -> None:
    extras: dict[str, list[str]] = project(ROOT)["project"]["optional-dependencies"]
    names = {project(folder)["project"]["name"] for folder in FOLDERS}
    assert {line.split("==")[0] for line in extras["all"]} == names
    chosen = {line.split("==")[0] for extra in ("standard", "cuda", "tools", "adapters") for line in extras[extra]}
    assert chosen == names, "every plugin belongs to an extra"
    listed = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").split()
    assert set(listed) >= {folder.relative_to(ROOT).as_posix() for folder in FOLDERS}


def test_constraints_pin_what_the_packages_require() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines if not line.startswith("#")}
    about = project(ROOT)["project"]
    wanted = [*about["dependencies"], *about["optional-dependencies"]["dev"]]
    wanted += [line for folder in FOLDERS for line in project(folder)["project"]["dependencies"]]
    for line in wanted:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name == "tramontane":
            continue
        assert name in pins, f"constraints.txt has no version of {name}"
        (pin,) = pins[name].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{pins[name]} does not satisfy {requirement}"


# --- licences and files -----------------------------------------------------------------------------------------------


def test_every_source_file_names_its_licence() -> None:
    files = tracked("*.py", "*.cpp", "*.h", "*pyproject.toml", "Makefile", ".ci/run")
    assert len(files) > 50
    missing = [
        str(file.relative_to(ROOT))
        for file in files
        if "SPDX-License-Identifier: Apache-2.0" not in "".join(file.read_text(encoding="utf-8").splitlines(True)[:3])
    ]
    assert not missing, missing


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_no_large_file_is_committed() -> None:
    """The demo model is the one large file, and has its own limit of 8 MB."""
    limit = 8 * 1024 * 1024
    large = [str(file.relative_to(ROOT)) for file in tracked() if file.stat().st_size > limit]
    assert not large


def test_every_decision_page_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", index) == pages
    assert len({page[:4] for page in pages}) == len(pages), "two pages with one number"


def test_every_core_module_says_what_it_is() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for file in tracked("core/*.py")
        if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not silent, silent
