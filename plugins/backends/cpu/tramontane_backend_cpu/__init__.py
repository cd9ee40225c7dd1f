# SPDX-License-Identifier: Apache-2.0
"""Native CPU kernels for Tramontane. What it contributes is said in :mod:`tramontane_backend_cpu.plugin`."""
