# SPDX-License-Identifier: Apache-2.0
"""The Llama family (Llama 2 and 3.x) for Tramontane. What it contributes is said in :mod:`tramontane_arch_llama.plugin`."""
