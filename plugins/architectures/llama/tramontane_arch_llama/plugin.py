# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-llama."""
