# SPDX-License-Identifier: Apache-2.0
"""Chat with a model in the terminal, for Tramontane. What it contributes is said in :mod:`tramontane_frontend_chat.plugin`."""
