# SPDX-License-Identifier: Apache-2.0
"""The Phi family for Tramontane. What it contributes is said in :mod:`tramontane_arch_phi.plugin`."""
