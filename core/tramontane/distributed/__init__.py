# SPDX-License-Identifier: Apache-2.0
"""Several workers for one model: what each holds, how their tensors meet, how they are started and told of steps."""

from tramontane.distributed.group import Group
from tramontane.distributed.share import Share, check_supported

__all__ = ["Group", "Share", "check_supported"]
