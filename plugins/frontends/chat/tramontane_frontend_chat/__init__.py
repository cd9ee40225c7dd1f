# SPDX-License-Identifier: Apache-2.0
"""Chat with a model in the terminal, for Tramontane."""
