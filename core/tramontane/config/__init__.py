# SPDX-License-Identifier: Apache-2.0
"""Configuration: mappings into attrs classes, strict for ours, tolerant for Hugging Face files.

Owns how values are read and how faults are reported; it knows no model and acts on nothing that a file says.
"""

from __future__ import annotations

from tramontane.config.checkpoints import parse_dtype, quantization_config, read_dtype, text_config
from tramontane.config.layers import layer_types_field, read_layer_types
from tramontane.config.limits import only
from tramontane.config.names import name_pattern
from tramontane.config.reading import AtLeast, Size, complete_config, derived, read_config, renamed
from tramontane.config.rope import RopeConfig, read_rope, rope_field

__all__ = [
    "AtLeast",
    "RopeConfig",
    "Size",
    "complete_config",
    "derived",
    "layer_types_field",
    "name_pattern",
    "only",
    "parse_dtype",
    "quantization_config",
    "read_config",
    "read_dtype",
    "read_layer_types",
    "read_rope",
    "renamed",
    "rope_field",
    "text_config",
]
