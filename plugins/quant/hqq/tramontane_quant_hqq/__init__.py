# SPDX-License-Identifier: Apache-2.0
"""HQQ checkpoints for Tramontane. What it contributes is said in :mod:`tramontane_quant_hqq.plugin`."""
