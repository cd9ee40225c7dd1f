# SPDX-License-Identifier: Apache-2.0
"""The Qwen family (Qwen3) for Tramontane. What it contributes is said in :mod:`tramontane_arch_qwen.plugin`."""
