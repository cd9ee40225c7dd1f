# SPDX-License-Identifier: Apache-2.0
"""MLX checkpoints for Tramontane. What it contributes is said in :mod:`tramontane_quant_afq.plugin`."""
