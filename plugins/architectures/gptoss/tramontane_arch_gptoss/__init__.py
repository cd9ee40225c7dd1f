# SPDX-License-Identifier: Apache-2.0
"""gpt-oss for Tramontane. What it contributes is said in :mod:`tramontane_arch_gptoss.plugin`."""
