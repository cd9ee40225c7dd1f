# SPDX-License-Identifier: Apache-2.0
"""mistral.rs's UQFF files for Tramontane. What it contributes is said in :mod:`tramontane_quant_uqff.plugin`."""
