# SPDX-License-Identifier: Apache-2.0
"""The ``torch`` backend: the fastest that stock torch does, on any device it runs on. No compiler, no own kernels."""

from tramontane.backends.torch.backend import TorchBackend

__all__ = ["TorchBackend"]
