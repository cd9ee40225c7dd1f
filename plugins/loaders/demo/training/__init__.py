# SPDX-License-Identifier: Apache-2.0
"""How the demo model is made: text, tokenizer, model and training. Run from the folder above; not part of the wheel."""
