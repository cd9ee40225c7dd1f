# SPDX-License-Identifier: Apache-2.0
"""For tests only: a model whose weights are a script, so that answers are known to the token.

:func:`tramontane_scripted.checkpoint.write_scripted` makes a checkpoint, :mod:`tramontane_scripted.model` runs it.
"""
