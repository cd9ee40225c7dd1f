# SPDX-License-Identifier: Apache-2.0
"""Measurements on a card: kernels, whole steps, prompts, many streams, loading. Run ``python -m
tramontane_backend_cuda.bench``; with ``--smoke`` the same code runs tiny shapes on the host, by the interpreter."""
