# SPDX-License-Identifier: Apache-2.0
"""FP8 and NVFP4 checkpoints for Tramontane. What it contributes is said in :mod:`tramontane_quant_fp8.plugin`."""
