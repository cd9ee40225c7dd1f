# SPDX-License-Identifier: Apache-2.0
"""What one worker holds of a model: the builder asks here for every size that workers divide among them.

Legend: O outputs, I inputs, X experts.
"""

from __future__ import annotations

from attrs import Factory, evolve, field, frozen

from tramontane.distributed.group import Group
from tramontane.errors import PlanError
from tramontane.tensors import Cut, Shard
from tramontane.weights import Matrix, Part, Source, Split


@frozen
class Share:
    """A worker's share: all of the model, where there is one worker."""

    shard: Shard = field(factory=Shard)
    group: Group = Factory(Group)
    by_expert: bool = False
    """Each worker holds some experts whole, instead of a part of each."""

    @property
    def parted(self) -> bool:
        """Whether there is more than one worker."""
        return self.shard.world > 1

    @property
    def first(self) -> bool:
        """Whether this is the worker that adds what must be added once."""
        return self.shard.rank == 0

    def heads(self, query: int, kv: int, *, what: str) -> tuple[int, int]:
        """How many query and key/value heads this worker has.

        Raises:
            PlanError: They do not divide.
        """
        if not self.parted:
            return query, kv
        (first, stop), (low, high) = self.shard.heads(query, what=what), self.shard.kv_heads(kv, what=what)
        return stop - first, high - low

    def matrix(self, matrix: Matrix) -> Matrix:
        """The part of a declared matrix that this worker holds.

        Raises:
            PlanError: An axis does not divide.
        """
        if not self.parted or matrix.split is None:
            return matrix
        path = matrix.path
        if matrix.split == "in":
            cut = self.shard.cut(matrix.in_features, what=f"{path}, inputs")
            return evolve(matrix, in_features=cut.length, cuts={"in": cut})
        if matrix.split == "expert":
            cut = self.experts(matrix.experts or 0, what=path)
            return evolve(matrix, experts=cut.length, cuts={"expert": cut})
        return evolve(matrix, parts=tuple(self._outputs(part, matrix.split) for part in matrix.parts))

    def experts(self, count: int, *, what: str) -> Cut:
        """The experts that this worker holds whole.

        Raises:
            PlanError: They do not divide.
        """
        return Cut(count, self.shard.even(count, what=f"{what}, experts"))

    def vocabulary(self, size: int) -> tuple[Cut, ...]:
        """The part of a vocabulary that each worker holds."""
        return self.shard.ragged(size)

    def source(self, source: Source, split: Split | None, stacked: bool) -> Source:
        """The part of a plain tensor that this worker holds; ``stacked``: its first axis is that of the experts."""
        if not self.parted or split not in ("out", "expert", "vocab") or not source.shape:
            return source
        shape, cuts = list(source.shape), {}
        if split == "expert":
            if not stacked:
                return source
            cuts["expert"] = self.experts(shape[0], what=source.path)
            shape[0] = cuts["expert"].length
        else:
            cuts["out"] = self._cut(source.shape[-1], source.path, split)
            shape[-1] = cuts["out"].length
        return evolve(source, shape=tuple(shape), cuts=cuts)

    def _outputs(self, part: Part, split: Split) -> Part:
        cut = self._cut(part.out_features, part.path, split)
        return evolve(part, out_features=cut.length, cut=cut)

    def _cut(self, size: int, path: str, split: Split) -> Cut:
        if split == "vocab":
            return self.vocabulary(size)[self.shard.rank]
        return self.shard.cut(size, what=f"{path}, outputs")


def check_supported(name: str, supported: bool, share: Share) -> None:
    """Refuse architectures whose layers were not written to be shared.

    Raises:
        PlanError: Names the architecture.
    """
    if share.parted and not supported:
        raise PlanError(
            f"the architecture {name} does not say that {share.shard.world} workers can share it",
            hint="load it without --tensor-parallel; --device-map spreads its layers over devices",
        )
