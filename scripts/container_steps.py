# SPDX-License-Identifier: Apache-2.0
"""Run the steps of a Dockerfile where there is no container engine: each stage is a folder that becomes the root.

    python scripts/container_steps.py docs/deploy/Dockerfile FOLDER -- tramontane run -p "Once upon a time"

It needs Linux, root's rights and debootstrap. Every base image is stood in for by a small Debian with Debian's own
Python, made once in ``FOLDER/base``. What the steps are told is what the file says, and the ``PIP_*`` variables of this
machine, which win. Instructions that the project's files do not use are refused. The command runs in the last stage as
the file's user, with the file's variables and no network but the loopback interface; without one, the file's own.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import define, field

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ca-certificates", "passwd", "python3", "python3-venv")
SUITE = "bookworm"
OF_THIS_MACHINE = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@define
class Stage:
    """A file system, and what the instructions so far have said about it."""

    root: Path
    variables: dict[str, str] = field(factory=lambda: {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"})
    folder: str = "/"
    user: str = "0"
    entrypoint: list[str] = field(factory=list)
    command: list[str] = field(factory=list)
    health: list[str] = field(factory=list)
    """What tells whether the container is well."""

    def inside(self, path: str) -> Path:
        """Where a path of the container lies here."""
        return self.root / os.path.normpath(Path(self.folder, path)).lstrip("/")

    def call(self, words: Sequence[str], told: Mapping[str, str], *, network: bool = True) -> list[str]:
        """The command line that runs ``words`` in this stage, with a ``/proc`` and a ``/dev`` of its own."""
        variables = [f"{name}={value}" for name, value in {**self.variables, **told}.items()]
        within = ["env", "-i", *variables, "sh", "-c", f'cd {shlex.quote(self.folder)} && exec "$0" "$@"', *words]
        chroot = shlex.join(["chroot", f"--userspec={self.user}:{self.user}", str(self.root), *within])
        root = shlex.quote(str(self.root))
        mounts = f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && "
        up = "" if network else f"{shlex.quote(sys.executable)} {shlex.quote(__file__)} --loopback-up && "
        apart = ["unshare", "--mount", "--pid", "--fork", *([] if network else ["--net"])]
        return [*apart, "sh", "-c", f"{mounts}{up}exec {chroot}"]


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """(name, the rest) of each instruction; lines that go on are joined, comments are left out."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", " ", lines).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def base(folder: Path) -> Path:
    """A small Debian with Python, made unless it is there."""
    made = folder / "base"
    if not (made / "usr/bin/python").exists():
        include = f"--include={','.join(PACKAGES)}"
        subprocess.run(["debootstrap", "--variant=minbase", include, SUITE, str(made)], check=True, stdout=sys.stderr)
        (made / "usr/bin/python").symlink_to("python3")
    for name in OF_THIS_MACHINE:
        if Path(name).exists():
            shutil.copyfile(name, made / name.lstrip("/"))
    return made


@define
class Build:
    """One run through a file."""

    folder: Path
    told: Mapping[str, str]
    """Variables of every step, which win over the file's."""
    context: Path = ROOT
    stages: dict[str, Stage] = field(factory=dict)
    stage: Stage | None = None

    def run(self, file: Path) -> Stage:
        """Carry out every instruction; the last stage.

        Raises:
            SystemExit: An instruction is not known here, or a step failed.
        """
        for name, rest in instructions(file.read_text(encoding="utf-8")):
            print(f"{name} {rest}", file=sys.stderr, flush=True)
            step = STEPS.get(name)
            if step is None:
                raise SystemExit(f"{file}: this script does not know {name}")
            step(self, rest)
        return self.now

    @property
    def now(self) -> Stage:
        """The stage that instructions speak of."""
        if self.stage is None:
            raise SystemExit("the file does not begin with FROM")
        return self.stage

    def from_(self, rest: str) -> None:
        """Begin a stage from a fresh copy of the base."""
        name = rest.split()[-1] if " AS " in rest else str(len(self.stages))
        root = self.folder / f"stage-{name}"
        if root.exists():
            shutil.rmtree(root)
        subprocess.run(["cp", "-a", "--reflink=auto", str(base(self.folder)), str(root)], check=True)
        self.stage = self.stages[name] = Stage(root)
        links = Path(self.told.get("PIP_FIND_LINKS", "/nowhere"))
        if links.is_dir():  # packages that lie on this machine
            shutil.copytree(links, root / links.relative_to("/"))

    def run_(self, rest: str) -> None:
        """Run a step in the stage."""
        subprocess.run(self.now.call(["/bin/sh", "-c", rest], self.told), check=True, stdout=sys.stderr)

    def copy(self, rest: str) -> None:
        """Copy from the checkout, less what ``.dockerignore`` names, or from another stage."""
        *options, source, target = rest.split()
        to = self.now.inside(target)
        if options:
            (other,) = (option.removeprefix("--from=") for option in options)
            subprocess.run(["cp", "-a", str(self.stages[other].inside(source)), str(to)], check=True)
            return
        shutil.copytree(self.context / source, to, ignore=self.ignored(), symlinks=True, dirs_exist_ok=True)

    def ignored(self) -> Callable[[str, list[str]], set[str]]:
        """What ``shutil.copytree`` leaves out: what ``.dockerignore`` names."""
        patterns = (self.context / ".dockerignore").read_text(encoding="utf-8").split()

        def ignored(folder: str, names: list[str]) -> set[str]:
            at = Path(folder).relative_to(self.context)
            return {
                name for name in names for pattern in patterns
                if fnmatch.fnmatch(name if pattern.startswith("**/") else str(at / name), pattern.removeprefix("**/"))
            }  # fmt: skip

        return ignored

    def env(self, rest: str) -> None:
        """Set variables; those that are named in a value are put in."""
        known = self.now.variables
        for word in shlex.split(rest):
            name, _, value = word.partition("=")
            known[name] = re.sub(r"\$(\w+)", lambda found: known.get(found[1], ""), value)

    def workdir(self, rest: str) -> None:
        """Make a folder and work in it."""
        self.now.inside(rest).mkdir(parents=True, exist_ok=True)
        self.now.folder = rest

    def user(self, rest: str) -> None:
        """Who runs what follows."""
        self.now.user = rest
        self.now.variables["HOME"] = "/tmp"

    def healthcheck(self, rest: str) -> None:
        """Note what tells whether the container is well."""
        self.now.health = json.loads(rest.partition("CMD ")[2])

    def entrypoint(self, rest: str) -> None:
        """Note what always runs."""
        self.now.entrypoint = json.loads(rest)

    def cmd(self, rest: str) -> None:
        """Note what runs if nothing else is asked for."""
        self.now.command = json.loads(rest)

    def nothing(self, rest: str) -> None:
        """What tells an engine of containers something, and a folder nothing."""


STEPS: dict[str, Callable[[Build, str], None]] = {
    "FROM": Build.from_, "RUN": Build.run_, "COPY": Build.copy, "ENV": Build.env, "WORKDIR": Build.workdir,
    "USER": Build.user, "HEALTHCHECK": Build.healthcheck, "ENTRYPOINT": Build.entrypoint, "CMD": Build.cmd,
    "VOLUME": Build.nothing, "EXPOSE": Build.nothing,
}  # fmt: skip


def of_this_machine(environ: Mapping[str, str]) -> dict[str, str]:
    """What pip is told here; who has wheels at hand may not reach the index that a file adds for them."""
    told = {name: value for name, value in environ.items() if name.startswith("PIP_")}
    return {"PIP_EXTRA_INDEX_URL": "", **told} if "PIP_FIND_LINKS" in told else told


def loopback_up() -> None:
    """Bring the loopback interface of this network namespace up: ``ip`` may not be installed."""
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running


def main() -> int:
    """Build, then run a command in the last stage."""
    if sys.argv[1:] == ["--loopback-up"]:
        loopback_up()
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path, help="where the file systems are made")
    parser.add_argument("command", nargs="*", help="after --, in place of the file's own")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    stage = Build(asked.folder.resolve(), of_this_machine(os.environ)).run(asked.file)
    words = [*stage.entrypoint, *(asked.command or stage.command)]
    return subprocess.call(stage.call(words, {}, network=False))


if __name__ == "__main__":
    sys.exit(main())
