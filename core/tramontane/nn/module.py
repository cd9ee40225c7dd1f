# SPDX-License-Identifier: Apache-2.0
"""The base of everything in a model file.

Deliberately less than ``torch.nn.Module``: no parameters to walk, no hooks, no training state. Weights are declared to
the :class:`~tramontane.build.Builder`, which owns them; a module holds bound ops and other modules.
"""

from __future__ import annotations

from typing import Any


class Module:
    """A callable piece of a model: calling it runs ``forward``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward``."""
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute. Subclasses define it."""
        raise NotImplementedError(f"{type(self).__qualname__} defines no forward")
