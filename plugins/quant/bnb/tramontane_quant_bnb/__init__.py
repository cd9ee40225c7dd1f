# SPDX-License-Identifier: Apache-2.0
"""bitsandbytes checkpoints for Tramontane. What it contributes is said in :mod:`tramontane_quant_bnb.plugin`."""
