# SPDX-License-Identifier: Apache-2.0
"""AWQ checkpoints for Tramontane. What it contributes is said in :mod:`tramontane_quant_awq.plugin`."""
