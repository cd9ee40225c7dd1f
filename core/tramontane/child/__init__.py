# SPDX-License-Identifier: Apache-2.0
"""An engine in a process of its own: its steps share neither an interpreter nor an address space with whoever asks.

``model`` is the asking side, ``main`` the process, ``frames`` what lies between (two pipes that nobody else can open;
JSON records and raw arrays, never pickle), ``codec`` how records look there.
"""
