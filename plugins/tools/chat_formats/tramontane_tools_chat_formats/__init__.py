# SPDX-License-Identifier: Apache-2.0
"""How families of chat models write reasoning and tool calls, for Tramontane."""
