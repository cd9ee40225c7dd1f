# SPDX-License-Identifier: Apache-2.0
"""GGUF for Tramontane. What it contributes is said in :mod:`tramontane_quant_gguf.plugin`."""
