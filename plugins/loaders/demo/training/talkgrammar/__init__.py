# SPDX-License-Identifier: Apache-2.0
"""The grammar of the conversations that the demo model learns from: questions, answers, tools, their calls and results.

Everything is made up here or common knowledge written down in :mod:`training.talkgrammar.facts`; nothing is downloaded.
"""
