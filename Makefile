# SPDX-License-Identifier: Apache-2.0
# Every target is dev.py's; where there is no make, `python3 dev.py run` does the same.
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help run test test-all bench bench-peers lint docs dist clean

help run test test-all bench bench-peers lint docs dist clean:
	@$(PYTHON) dev.py $@ $(ARGS)
