# SPDX-License-Identifier: Apache-2.0
"""The GLM family for Tramontane. What it contributes is said in :mod:`tramontane_arch_glm.plugin`."""
