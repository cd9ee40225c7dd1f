# SPDX-License-Identifier: Apache-2.0
"""The core's health checks: what ``tramontane doctor`` looks at without any plugin.

Each takes the loaded plugins and yields :class:`~tramontane.records.Health` lines. A check looks, it changes nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from tramontane import processor
from tramontane.memory import format_bytes, memory_limits
from tramontane.plugins import Plugins, Status
from tramontane.plugins.report import TROUBLE
from tramontane.records import Health, HealthStatus

_GIB = 1 << 30
_LITTLE_DISK = 10 * _GIB
_LITTLE_MEMORY = 2 * _GIB
_OLDEST_TORCH = (2, 11)
_COMPILERS = ("c++", "g++", "clang++")


def check_python(_plugins: Plugins) -> Iterator[Health]:
    """The interpreter."""
    text = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}"
    yield Health(title="python", status=HealthStatus.OK, message=text)


def check_torch(_plugins: Plugins) -> Iterator[Health]:
    """torch: whether it imports, its version, the devices it sees."""
    try:
        import torch
    except Exception as error:
        message = f"torch cannot be imported: {type(error).__name__}: {error}"
        yield Health(title="torch", status=HealthStatus.FAIL, message=message, hint="pip install torch")
        return
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2] if part.isdecimal())
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    message = f"{torch.__version__}, {torch.get_num_threads()} threads, devices: {', '.join(devices)}"
    if version < _OLDEST_TORCH:
        wanted = ".".join(map(str, _OLDEST_TORCH))
        hint = f'pip install -U "torch>={wanted}"'
        yield Health(title="torch", status=HealthStatus.FAIL, message=f"{message}; older than {wanted}", hint=hint)
    else:
        yield Health(title="torch", status=HealthStatus.OK, message=message)


def check_processor(_plugins: Plugins) -> Iterator[Health]:
    """Cores this process may use, and the instruction sets that matter for matrix products."""
    wanted = ("avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "avx_vnni")
    arm = ("asimd", "asimddp", "i8mm", "bf16", "sve")
    have = processor.instruction_sets()
    named = [name for name in (*wanted, *arm) if name in have]
    message = f"{processor.model_name()}, {processor.cores():g} cores, {' '.join(named) or 'instruction sets unknown'}"
    if platform.machine() in ("x86_64", "AMD64") and have and "avx2" not in have:
        yield Health(
            title="processor",
            status=HealthStatus.WARN,
            message=message,
            hint="without AVX2 every kernel takes its slow path",
        )
    else:
        yield Health(title="processor", status=HealthStatus.OK, message=message)


def check_memory(_plugins: Plugins) -> Iterator[Health]:
    """Memory this process can have, within its control group."""
    limits = memory_limits()
    message = f"{format_bytes(limits.available)} of {format_bytes(limits.total)} available"
    if limits.available < _LITTLE_MEMORY:
        hint = "close other programs, or choose a small model or a --quant"
        yield Health(title="memory", status=HealthStatus.WARN, message=message, hint=hint)
    else:
        yield Health(title="memory", status=HealthStatus.OK, message=message)


def check_disk(_plugins: Plugins) -> Iterator[Health]:
    """Room where downloaded models are kept."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    message = f"{format_bytes(free)} free for models in {cache}"
    if not os.access(existing, os.W_OK):
        hint = "set HF_HOME to a folder you can write to"
        yield Health(title="disk", status=HealthStatus.FAIL, message=f"{existing} cannot be written to", hint=hint)
    elif free < _LITTLE_DISK:
        hint = "make room, or set HF_HOME to a folder on a larger disk"
        yield Health(title="disk", status=HealthStatus.WARN, message=message, hint=hint)
    else:
        yield Health(title="disk", status=HealthStatus.OK, message=message)


def check_compiler(_plugins: Plugins) -> Iterator[Health]:
    """A C++ compiler, with which native kernels are built where no wheel fits."""
    asked = os.environ.get("CXX")
    found = next((path for name in ((asked,) if asked else _COMPILERS) if (path := shutil.which(name))), None)
    if found is not None:
        yield Health(title="compiler", status=HealthStatus.OK, message=found)
        return
    message = f"CXX={asked} is not a program" if asked else f"none of {', '.join(_COMPILERS)} on the path"
    hint = "everything works without one, on torch's own kernels; install g++ or clang++ to build faster ones"
    yield Health(title="compiler", status=HealthStatus.WARN, message=message, hint=hint)


def check_plugins(plugins: Plugins) -> Iterator[Health]:
    """Plugins that are not, or not wholly, in use; names that two plugins claim; observers that raise."""
    yield Health(title="plugins", status=HealthStatus.OK, message=f"{len(plugins.loaded)} in use")
    for report in plugins.reports:
        if report.status in TROUBLE:
            status = HealthStatus.WARN if report.status is Status.PARTLY_UNKNOWN else HealthStatus.FAIL
            yield Health(title="plugins", status=status, message=report.line, hint="`tramontane plugins` says more")
    for conflict in plugins.catalogs.conflicts():
        yield Health(title="plugins", status=HealthStatus.WARN, message=str(conflict), hint=conflict.remedy)
    for where, times in plugins.observers.errors.items():
        yield Health(title="plugins", status=HealthStatus.WARN, message=f"observer {where} raised {times} times")
