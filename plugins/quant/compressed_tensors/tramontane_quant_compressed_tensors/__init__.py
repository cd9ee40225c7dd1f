# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of compressed-tensors for Tramontane. What it contributes is said in its module ``plugin``."""
