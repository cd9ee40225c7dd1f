# SPDX-License-Identifier: Apache-2.0
"""``python -m tramontane``: the command line, where the script is not on the path."""

from __future__ import annotations

from tramontane.cli import main

if __name__ == "__main__":
    main()
