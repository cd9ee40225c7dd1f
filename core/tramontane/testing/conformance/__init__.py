# SPDX-License-Identifier: Apache-2.0
"""The conformance kit: what every plugin must hold, run by its author.

``pytest --pyargs tramontane.testing.conformance --tramontane-target DIST`` (extra ``testing``). It needs no other
implementation of a model: architectures run on random weights and are compared with themselves.

A check that cannot hold is named with a reason in the plugin's ``pyproject.toml``, by the id that pytest prints or a
pattern of it; it must then fail::

    [tool.tramontane.conformance.exceptions]
    "foo-*-captured" = "the routing of Foo is computed on the host"
"""
