# SPDX-License-Identifier: Apache-2.0
"""The Cohere family for Tramontane. What it contributes is said in :mod:`tramontane_arch_cohere.plugin`."""
