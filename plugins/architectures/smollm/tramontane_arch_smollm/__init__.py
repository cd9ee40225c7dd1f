# SPDX-License-Identifier: Apache-2.0
"""The SmolLM family for Tramontane. What it contributes is said in :mod:`tramontane_arch_smollm.plugin`."""
