# SPDX-License-Identifier: Apache-2.0
"""Recording: run a model's code once and note what it did.

Ops announce themselves, and are not run. Torch code between ops is seen by a ``TorchDispatchMode`` and judged by
storage, not by name: a call whose results share storage with its inputs is a view; one that allocates or writes is kept
as it is and cuts the tape into segments. Code that asks the device for a number (``item``, data-dependent shapes)
cannot be replayed and is refused.

One recording fixes one batch; :mod:`tramontane.tape.symbols` compares two of different sizes to find what depends on
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tramontane.batch import Ctx
from tramontane.errors import CaptureRefused
from tramontane.ops import BoundOp, Runtime
from tramontane.ops.bound import unwrap
from tramontane.tape.ir import Kind, Node, OpNode, Ref, Tape, TorchNode, Value

_ASKS_DEVICE = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


def fields_of(ctx: Ctx) -> dict[str, Tensor]:
    """The tensors of a batch by name."""
    named = {
        name: getattr(ctx, name)
        for name in (
            "ids_T",
            "positions_KT",
            "seq_of_T",
            "q_start",
            "kv_len_R",
            "out_rows_L",
            "state_slot_R",
            "state_fresh_R",
            "mix_TA",
        )
    }
    for index, group in enumerate(ctx.groups):
        named[f"groups.{index}.table_RB"] = group.table_RB
        named[f"groups.{index}.slot_T"] = group.slot_T
    return {name: tensor for name, tensor in named.items() if tensor is not None}


class Recorder(TorchDispatchMode):
    """Records everything that runs inside ``with Recorder(runtime, ctx)``."""

    def __init__(self, runtime: Runtime, ctx: Ctx) -> None:
        super().__init__()
        self.runtime = runtime
        self.values: list[Value] = []
        self.nodes: list[Node] = []
        self._known: dict[int, int] = {}
        self._keep: list[Tensor] = []  # ids are only unique among living tensors
        self._in_op = False
        for name, tensor in fields_of(ctx).items():
            self._enter(tensor, Kind.FIELD, name=name)

    def __enter__(self) -> Recorder:
        self.runtime.recorder = self
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.runtime.recorder = None
        super().__exit__(kind, error, trace)

    def record(self, call: BoundOp, inputs: Sequence[Tensor]) -> Any:
        """Note a bound op. It is not run: no output's shape depends on numbers, and two prompts' products would be
        a good part of loading a large model. Its results are whatever lies there, and zeros where they are whole
        numbers, which torch code may take for places."""
        sources = tuple(self._value(tensor) for tensor in inputs)
        self._in_op = True
        try:
            outputs = call.allocate(inputs)
            for output in outputs:
                if not output.is_floating_point():
                    output.zero_()
        finally:
            self._in_op = False
        made = tuple(self._enter(tensor, Kind.ARENA) for tensor in outputs)
        self.nodes.append(OpNode(call, sources, made))
        return unwrap(outputs)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is ever compiled; the guard against it would import the compiler, a third of a small load."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._in_op:
            return func(*args, **kwargs)
        if any(tag in func.tags for tag in _ASKS_DEVICE):
            raise CaptureRefused(f"the model's code calls {func}, which needs a value from the device during the step")
        result = func(*args, **kwargs)
        self._note(func, args, kwargs, result)
        return result

    def finish(self, *results: Tensor) -> Tape:
        """The tape, with these tensors as its result."""
        return Tape(self.values, self.nodes, tuple(self._value(tensor) for tensor in results))

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        inputs = tuple(self._value(tensor) for tensor in tensors)
        owners = {tensor.untyped_storage().data_ptr(): value for tensor, value in zip(tensors, inputs, strict=True)}
        writes = any(arg.alias_info is not None and arg.alias_info.is_write for arg in func._schema.arguments)
        outputs, shared = [], not writes
        for out in (x for x in pytree.tree_leaves(result) if isinstance(x, Tensor)):
            owner = owners.get(out.untyped_storage().data_ptr()) if out.untyped_storage().nbytes() else None
            if id(out) in self._known:  # an in-place call returns its own input
                outputs.append(self._known[id(out)])
            elif owner is not None:
                outputs.append(self._enter(out, Kind.VIEW, root=owner))
            else:
                outputs.append(self._enter(out, Kind.FOREIGN))
                shared = False
        template = pytree.tree_map(lambda x: Ref(self._value(x)) if isinstance(x, Tensor) else x, (args, kwargs))
        self.nodes.append(TorchNode(func, template[0], template[1], tuple(outputs), inputs, shared))

    def _value(self, tensor: Tensor) -> int:
        known = self._known.get(id(tensor))
        return self._enter(tensor, Kind.CONSTANT) if known is None else known

    def _enter(self, tensor: Tensor, kind: Kind, *, root: int | None = None, name: str = "") -> int:
        held = tensor if kind is Kind.CONSTANT else None
        self.values.append(Value(kind, tuple(tensor.shape), tensor.dtype, root=root, name=name, tensor=held))
        self._known[id(tensor)] = len(self.values) - 1
        self._keep.append(tensor)
        return len(self.values) - 1
