# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters. What it contributes is said in :mod:`tramontane_adapter_lora.plugin`."""
