# SPDX-License-Identifier: Apache-2.0
"""Tapes: recorded steps, their rewrite rules, and what runs them."""
