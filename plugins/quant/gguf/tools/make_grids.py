# SPDX-License-Identifier: Apache-2.0
"""Writes ``codecs/grid_data.py``: the tables of the IQ types, numbers that are part of the format.

``python tools/make_grids.py`` takes them from the ``gguf`` package (a development dependency). Each table is stored as
the indices of its elements' values, packed to as few bits as they need, compressed, in base 85.
"""

from __future__ import annotations

import base64
import textwrap
import zlib
from pathlib import Path

import torch
from gguf import quants

from tramontane.schemes.packing import pack

TARGET = Path(__file__).parents[1] / "tramontane_quant_gguf" / "codecs" / "grid_data.py"
TABLES = {
    "iq1": "IQ1_S",
    "iq2_xxs": "IQ2_XXS",
    "iq2_xs": "IQ2_XS",
    "iq2_s": "IQ2_S",
    "iq3_xxs": "IQ3_XXS",
    "iq3_s": "IQ3_S",
}
HEAD = '''# SPDX-License-Identifier: Apache-2.0
"""Tables of the IQ types. Written by ``tools/make_grids.py``, not by hand; read by ``grids.py``."""

from __future__ import annotations

#: Name -> (rows, elements of a row, the values of the codes, packed and compressed codes in base 85).
TABLES: dict[str, tuple[int, int, tuple[int, ...], str]] = {
'''


def codes(kind: type) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Indices into the distinct values of a table, uint8 [rows, elements], and those values."""
    kind.init_grid()
    values = tuple(sorted(int(value) for value in kind.grid_map))
    grid = torch.from_numpy(kind.grid).reshape(kind.grid_shape).to(torch.int64).contiguous()
    return torch.searchsorted(torch.tensor(values), grid).to(torch.uint8), values


def entry(name: str) -> str:
    """One table as a line of a dictionary."""
    found, values = codes(getattr(quants, TABLES[name]))
    bits = (len(values) - 1).bit_length()
    packed = pack(found.flatten(), bits).numpy().tobytes()
    text = base64.b85encode(zlib.compress(packed, 9)).decode("ascii")
    lines = "\n".join(f'        "{line}"' for line in textwrap.wrap(text, 108, break_on_hyphens=False))
    rows, elements = found.shape
    return f'    "{name}": (\n        {rows},\n        {elements},\n        {values},\n{lines},\n    ),\n'


if __name__ == "__main__":
    TARGET.write_text(HEAD + "".join(map(entry, TABLES)) + "}\n", encoding="ascii")
    print(f"wrote {TARGET}")
