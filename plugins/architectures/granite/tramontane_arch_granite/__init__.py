# SPDX-License-Identifier: Apache-2.0
"""The Granite family for Tramontane. What it contributes is said in :mod:`tramontane_arch_granite.plugin`."""
