# SPDX-License-Identifier: Apache-2.0
"""Test helpers for the core and for plugin authors: a sealed plugin manager, tiny models, the conformance kit.

Importing this package imports nothing heavy; pytest loads :mod:`tramontane.testing.pytest_plugin` at every start.
"""
