# SPDX-License-Identifier: Apache-2.0
"""The Mixtral family for Tramontane. What it contributes is said in :mod:`tramontane_arch_mixtral.plugin`."""
