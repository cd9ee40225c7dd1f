# SPDX-License-Identifier: Apache-2.0
"""GPTQ checkpoints for Tramontane. What it contributes is said in :mod:`tramontane_quant_gptq.plugin`."""
