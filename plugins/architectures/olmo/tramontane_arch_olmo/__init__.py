# SPDX-License-Identifier: Apache-2.0
"""The OLMo family for Tramontane. What it contributes is said in :mod:`tramontane_arch_olmo.plugin`."""
