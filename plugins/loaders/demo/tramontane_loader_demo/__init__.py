# SPDX-License-Identifier: Apache-2.0
"""The embedded demo model of Tramontane: `tramontane run` works with no network and no argument.

What it contributes is said in :mod:`tramontane_loader_demo.plugin`.
"""
