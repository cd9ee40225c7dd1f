# SPDX-License-Identifier: Apache-2.0
"""What each type of quantization costs and saves: quality, memory of loading, speed.

Each is a command of ``python -m tramontane.bench.quantization`` that adds what it measured to one file of records
(:mod:`.records`), from which ``scripts/quantization_page.py`` writes the documentation's tables and drawing.
"""
