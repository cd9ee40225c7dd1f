# SPDX-License-Identifier: Apache-2.0
"""The chat page: static files, and the ASGI application that serves them."""
