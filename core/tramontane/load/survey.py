# SPDX-License-Identifier: Apache-2.0
"""What a model would take, from its configuration and headers alone: nothing is read or allocated."""

from __future__ import annotations

from attrs import frozen

from tramontane.cache.spec import CacheGroup
from tramontane.checkpoint import Checkpoint
from tramontane.load.design import design, plan_weights
from tramontane.load.find import choose_backend
from tramontane.load.options import LoadOptions
from tramontane.load.places import main_place
from tramontane.plugins import Plugins


@frozen(kw_only=True)
class Survey:
    """The memory plan of a model on this machine's best backend."""

    backend: str
    runs_as: str
    """Type of the activations."""
    learned_numbers: int
    """Parameters of the model, whatever they are stored as; a tied head counts once."""
    bytes_weights: int
    bytes_cache_per_token: int
    bytes_state_per_sequence: int
    cache: tuple[str, ...]
    """One line per cache group."""
    max_model_len: int


def survey(checkpoint: Checkpoint, plugins: Plugins, options: LoadOptions | None = None) -> Survey:
    """Plan the model without loading it.

    Raises:
        TramontaneError: Nobody runs it, or the checkpoint does not fit its configuration.
    """
    chosen = options or LoadOptions()
    backend = choose_backend(main_place(chosen), plugins)
    made = design(checkpoint, chosen, plugins, backend)
    plan = plan_weights(made, checkpoint, chosen, plugins, backend)
    own = [place.spec for place in made.layout.layers.values() if place.spec.share_with is None]
    return Survey(
        backend=backend.name,
        runs_as=str(plan.dtype).removeprefix("torch."),
        learned_numbers=plan.parameters,
        bytes_weights=plan.nbytes,
        bytes_cache_per_token=sum(spec.bytes_per_token for spec in own),
        bytes_state_per_sequence=made.layout.state_bytes,
        cache=tuple(_line(group) for group in made.layout.groups),
        max_model_len=made.max_model_len,
    )


def _line(group: CacheGroup) -> str:
    window = f" {group.window}" if group.window else ""
    return f"{group.kind}{window}: {len(group.layers)} layers in blocks of {group.block_tokens} tokens"
