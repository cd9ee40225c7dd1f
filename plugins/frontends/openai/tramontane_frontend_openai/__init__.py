# SPDX-License-Identifier: Apache-2.0
"""The OpenAI API over a host's models, as an ASGI application."""
