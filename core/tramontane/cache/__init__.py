# SPDX-License-Identifier: Apache-2.0
"""The cache: what layers keep about past tokens, as ids and bytes.

:mod:`~tramontane.cache.spec` says what each layer stores and lays it out, :mod:`~tramontane.cache.pool` owns the
blocks, :mod:`~tramontane.cache.prefix` names their contents, :mod:`~tramontane.cache.manager` ties them to sequences.
Deciding which tokens are where never touches a tensor: a backend makes the storage from a
:class:`~tramontane.cache.spec.CacheLayout`.
"""
