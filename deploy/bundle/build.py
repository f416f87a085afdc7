"""Makes the archive that installs Guantong where there is no network: `python deploy/bundle/build.py` (or `make bundle`).

It needs the network itself: pip fetches the wheels of requirements.txt, whose hashes are checked, for each machine and Python asked for.
In the archive: those wheels and ours, the documentation as HTML, systemd units, a configuration to begin with, `install.sh`, a list of
licences and SHA-256 sums. The same commit and requirements make the same bytes; the times are SOURCE_DATE_EPOCH's, or the commit's.
"""

from __future__ import annotations

import argparse
import email.message
import email.parser
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent

MACHINES: Final = ("x86_64", "aarch64")
PYTHONS: Final = ("3.11", "3.12", "3.13")
"""Debian 12 has 3.11, Ubuntu 24.04 has 3.12, Debian 13 has 3.13."""
PLATFORMS: Final = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
GLIBC: Final = "2.28"
"""The newest C library that a wheel of PLATFORMS may ask for."""
LICENCES: Final = "LICENSES.txt"


class BundleError(Exception):
    """The archive cannot be made; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """What an archive is for."""

    machine: str
    python: str

    def environment(self, extra: str) -> dict[str, str]:
        """The environment of PEP 508 there."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
            "extra": extra,
        }

    def serves(self, wheel: Path) -> bool:
        """True when the wheel can be installed there."""
        nodot = self.python.replace(".", "")
        for tag in parse_wheel_filename(wheel.name)[3]:
            machine = tag.platform == "any" or tag.platform.endswith(f"_{self.machine}")
            own = tag.interpreter == f"cp{nodot}" and tag.abi in (f"cp{nodot}", "none")
            stable = tag.abi == "abi3" and int(tag.interpreter.removeprefix("cp3")) <= int(nodot[1:])
            pure = tag.abi == "none" and tag.interpreter in ("py3", f"py{nodot}")
            if machine and (own or stable or pure):
                return True
        return False


def run(*command: str | Path, environment: dict[str, str] | None = None) -> None:
    """Runs a program in the checkout; what it says is shown only when it fails."""
    told = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    if told.returncode != 0:
        raise BundleError(f"{' '.join(str(part) for part in command[:4])} …\n{told.stdout}{told.stderr}")


def fetch(target: Target, requirements: Path, folder: Path) -> None:
    """Fetches the wheels of the requirements for the target into the folder.

    Raises:
        BundleError: there is no wheel for it.
    """
    nodot = target.python.replace(".", "")
    platforms = [f"--platform={name}_{target.machine}" for name in PLATFORMS]
    try:
        run(
            sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-input", "--no-deps",
            "--only-binary=:all:", "--require-hashes", f"--requirement={requirements}", f"--dest={folder}",
            f"--python-version={target.python}", "--implementation=cp", f"--abi=cp{nodot}", "--abi=abi3", "--abi=none",
            *platforms,
        )  # fmt: skip
    except BundleError as error:
        missing = re.findall(r"No matching distribution found for (\S+)", str(error))
        if not missing:
            raise
        raise BundleError(
            f"no wheel of {', '.join(missing)} for {target.machine} and Python {target.python} (glibc {GLIBC}); choose a version in "
            "pyproject.toml that has one and run `make lock`, or leave this machine or Python out"
        ) from error


def metadata(wheel: Path) -> email.message.Message:
    """The core metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        return email.parser.Parser().parsestr(archive.read(name).decode())


def needed(wheels: Sequence[Path], root: Requirement, target: Target) -> set[Path]:
    """The wheels that installing `root` takes on the target.

    Raises:
        BundleError: something is asked for that is not there. The lock is made with one Python, and another may need more.
    """
    found: dict[str, Path] = {}
    for one in wheels:
        if target.serves(one):
            found[canonicalize_name(parse_wheel_filename(one.name)[0])] = one
    taken: set[Path] = set()
    asked: set[tuple[str, str]] = set()
    waiting: list[tuple[Requirement, str]] = [(root, "this archive")]
    while waiting:
        requirement, by = waiting.pop()
        wheel = found.get(canonicalize_name(requirement.name))
        version = None if wheel is None else parse_wheel_filename(wheel.name)[1]
        if wheel is None or version is None or not requirement.specifier.contains(version, prereleases=True):
            raise BundleError(
                f"{by} needs {requirement} on {target.machine} with Python {target.python}; requirements.txt has "
                f"{version or 'no wheel of it for that'}"
            )
        taken.add(wheel)
        for extra in ("", *sorted(requirement.extras)):
            if (wheel.name, extra) in asked:
                continue
            asked.add((wheel.name, extra))
            for line in metadata(wheel).get_all("Requires-Dist", []):
                next_one = Requirement(line)
                if next_one.marker is None or next_one.marker.evaluate(target.environment(extra)):
                    waiting.append((next_one, wheel.name))
    return taken


def licence(wheel: Path) -> str:
    """What a wheel says of its licence, in one line."""
    found = metadata(wheel)
    expression = found["License-Expression"]
    if expression:
        return str(expression)
    classifiers = [
        line.rpartition(" :: ")[2] for line in found.get_all("Classifier", []) if line.startswith("License ::")
    ]
    said = (found["License"] or "").strip().partition("\n")[0]
    return "; ".join(classifiers) or said or "see the licence file in the wheel"


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def epoch() -> int:
    """The time that everything in the archive has: SOURCE_DATE_EPOCH, else the commit's, else 2020-02-02 as hatchling has it."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    try:
        told = subprocess.run(
            ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return 1_580_601_600
    return int(told.stdout) if told.returncode == 0 and told.stdout.strip() else 1_580_601_600


def fill(folder: Path, targets: Sequence[Target], version: str, when: int) -> None:
    """Puts everything into the folder that becomes the archive."""
    wheels, pip = folder / "wheels", folder / "pip"
    wheels.mkdir()
    pip.mkdir()
    for target in targets:
        fetch(target, ROOT / "requirements.txt", wheels)
    fetch(targets[0], HERE / "requirements.txt", pip)
    run(
        sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", wheels,
        environment={"SOURCE_DATE_EPOCH": str(when)},
    )  # fmt: skip
    here = sorted(wheels.glob("*.whl"))
    root = Requirement(f"guantong[fast]=={version}")
    taken = set[Path]().union(*(needed(here, root, target) for target in targets))
    for wheel in here:
        if wheel not in taken:  # what only building needs
            wheel.unlink()
    kept = sorted([*taken, *pip.glob("*.whl")], key=lambda wheel: wheel.name.lower())
    write_lists(folder, kept)
    shutil.copytree(ROOT / "deploy" / "systemd", folder / "systemd")
    shutil.copy(ROOT / "gateway" / "start.yaml", folder / "guantong.yaml")
    shutil.copy(ROOT / "LICENSE", folder)
    for name in ("install.sh", "README.txt"):
        shutil.copy(HERE / name, folder)
    run(sys.executable, "-m", "gateway.documentation", folder / "docs")
    machines = dict.fromkeys(target.machine for target in targets)
    pythons = dict.fromkeys(target.python for target in targets)
    (folder / "BUNDLE").write_text(
        f"version={version}\nmachines={' '.join(machines)}\npythons={' '.join(pythons)}\nglibc={GLIBC}\n",
        encoding="utf-8",
    )
    sums = [f"{sha256(file)}  {file.relative_to(folder).as_posix()}" for file in files(folder)]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")


def write_lists(folder: Path, wheels: Sequence[Path]) -> None:
    """requirements.txt with the hashes of exactly these wheels, and the list of their licences."""
    hashes: dict[str, list[str]] = {}
    licences: dict[str, str] = {}
    for wheel in wheels:
        name, version, _, _ = parse_wheel_filename(wheel.name)
        extra = "[fast]" if name == "guantong" else ""
        hashes.setdefault(f"{name}{extra}=={version}", []).append(sha256(wheel))
        licences[f"{name} {version}"] = licence(wheel)
    lines = [
        " \\\n".join([pinned, *(f"    --hash=sha256:{one}" for one in sorted(set(found)))])
        for pinned, found in sorted(hashes.items())
    ]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    width = max(map(len, licences)) + 2
    text = "The packages of this archive and their licences, as they say themselves; each wheel (a zip file) holds the texts.\n\n"
    text += "".join(f"{name:<{width}}{said}\n" for name, said in sorted(licences.items()))
    (folder / LICENCES).write_text(text, encoding="utf-8")


def files(folder: Path) -> Iterator[Path]:
    """All files below the folder, in one order everywhere."""
    yield from sorted(
        (file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.relative_to(folder).as_posix()
    )


def pack(folder: Path, archive: Path, when: int) -> None:
    """Writes the archive: sorted, owned by nobody in particular, with one time. Wheels are compressed already."""
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=when) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for file in files(folder):
            entry = tarfile.TarInfo(f"{folder.name}/{file.relative_to(folder).as_posix()}")
            entry.size, entry.mtime = file.stat().st_size, when
            entry.mode = 0o755 if file.name == "install.sh" else 0o644
            with file.open("rb") as content:
                tar.addfile(entry, content)


def build(targets: Sequence[Target], out: Path) -> Path:
    """Makes the archive for the targets in the folder `out`, with its SHA-256 beside it; returns its path."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = str(tomllib.load(file)["project"]["version"])
    when = epoch()
    machines = list(dict.fromkeys(target.machine for target in targets))
    name = f"guantong-{version}-bundle" + ("" if len(machines) > 1 else f"-{machines[0]}")
    out.mkdir(parents=True, exist_ok=True)
    archive = out / f"{name}.tar.gz"
    with tempfile.TemporaryDirectory(prefix="guantong-bundle-") as temporary:
        folder = Path(temporary) / name
        folder.mkdir()
        fill(folder, targets, version, when)
        part = archive.with_suffix(".part")
        pack(folder, part, when)
        part.replace(archive)
    archive.with_name(f"{archive.name}.sha256").write_text(f"{sha256(archive)}  {archive.name}\n", encoding="utf-8")
    return archive


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the options, makes the archive, returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", action="append", choices=MACHINES, help="one or more; both by default")
    parser.add_argument("--python", action="append", help=f"one or more; {', '.join(PYTHONS)} by default")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    given = parser.parse_args(arguments)
    targets = [Target(machine, python) for machine in given.machine or MACHINES for python in given.python or PYTHONS]
    try:
        archive = build(targets, given.out)
    except BundleError as error:
        sys.stderr.write(f"bundle: {error}\n")
        return 1
    sys.stdout.write(f"{archive} ({archive.stat().st_size / 1e6:.0f} MB)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
