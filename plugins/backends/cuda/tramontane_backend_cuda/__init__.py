# SPDX-License-Identifier: Apache-2.0
"""Triton kernels for NVIDIA GPUs. What it contributes is said in :mod:`tramontane_backend_cuda.plugin`."""
