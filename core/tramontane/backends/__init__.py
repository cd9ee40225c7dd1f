# SPDX-License-Identifier: Apache-2.0
"""Backends that come with the core: ``reference`` (obvious) and ``torch`` (the fast stock path)."""
