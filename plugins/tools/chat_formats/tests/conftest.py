# SPDX-License-Identifier: Apache-2.0
"""Lets the tests here share a module: with pytest's importlib mode a test cannot import its neighbour."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

NAME = "chat_format_outputs"

if NAME not in sys.modules:
    spec = importlib.util.spec_from_file_location(NAME, Path(__file__).with_name(f"{NAME}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
