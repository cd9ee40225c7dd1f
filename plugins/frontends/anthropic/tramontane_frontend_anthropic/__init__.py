# SPDX-License-Identifier: Apache-2.0
"""The Anthropic Messages API, a frontend of the common HTTP port."""
