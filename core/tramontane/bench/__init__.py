# SPDX-License-Identifier: Apache-2.0
"""Measurements of the core itself; each module prints its table when run."""
