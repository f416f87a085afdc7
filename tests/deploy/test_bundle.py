"""The archive for machines without internet: made, installed with the network cut, upgraded, removed."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.deploy.files import DEPLOY, ROOT
from tests.servers import needs
from tests.servers.needs import missing, require

BUNDLE = DEPLOY / "bundle"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
EPOCH = 1_700_000_000
OFFLINE = Path(__file__).with_name("offline.py")


@functools.cache
def builder() -> ModuleType:
    """deploy/bundle/build.py, which is a program and in no package."""
    spec = importlib.util.spec_from_file_location("bundle_build", BUNDLE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive for both machines and the Python that runs the tests."""
    build = builder()
    targets = [build.Target(machine, PYTHON) for machine in build.MACHINES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
        made: Path = build.build(targets, tmp_path_factory.mktemp("dist"))
    return made


@pytest.fixture
def unpacked(archive: Path, tmp_path: Path) -> Path:
    """The archive as `tar` unpacks it."""
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path], check=True)
    return next(tmp_path.glob("guantong-*-bundle"))


def cut_off(job: str, archive: Path, work: Path, *, mounts: bool = False) -> dict[str, Any]:
    """Runs a job of offline.py in a network namespace of its own, with an empty home and no settings of pip."""
    alone = needs.cut_off(mounts=mounts)
    home = work / "home"
    home.mkdir()
    folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    if not mounts or not sys.base_prefix.startswith("/root/"):  # closed to the user that the units run as
        folders.insert(0, str(Path(sys.base_prefix) / "bin"))
    told = subprocess.run(
        [*alone, sys.executable, OFFLINE, job, archive, work],
        capture_output=True, text=True, check=False, cwd=work, timeout=280,
        env={"PATH": os.pathsep.join(folders), "HOME": str(home), "LANG": "zh_CN.UTF-8", "PIP_CONFIG_FILE": os.devnull},
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    seen: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return seen


@pytest.mark.timeout(300)  # the archive is made here
def test_what_is_in_the_archive(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        members = {member.name.split("/", 1)[1]: member for member in tar}
        texts = {
            name: tar.extractfile(member).read().decode()  # type: ignore[union-attr]
            for name, member in members.items()
            if name.endswith((".txt", ".sh", ".service", ".yaml", ".html")) or name in ("BUNDLE", "SHA256SUMS")
        }
    assert {"install.sh", "README.txt", "BUNDLE", "LICENSE", "LICENSES.txt", "SHA256SUMS", "guantong.yaml"} <= set(
        members
    )
    assert {"docs/index.html", "docs/zh/quick-start.html", "docs/en/operating.html"} <= set(members)
    assert {f"systemd/{unit.name}" for unit in (DEPLOY / "systemd").iterdir()} <= set(members)
    assert {(member.uid, member.uname, member.mtime) for member in members.values()} == {(0, "", EPOCH)}
    assert members["install.sh"].mode == 0o755
    listed = {line.split("  ", 1)[1] for line in texts["SHA256SUMS"].splitlines()}
    assert listed == set(members) - {"SHA256SUMS"}
    wheels = [Path(name).name for name in members if name.startswith("wheels/")]
    assert not [name for name in wheels if name.startswith("hatchling")], "only building needs it"
    for name in wheels:
        assert f"{name.split('-')[0].lower().replace('_', '-')} " in texts["LICENSES.txt"].lower(), name
    assert "see the licence file" not in texts["LICENSES.txt"], "each says its licence"
    for name, text in texts.items():
        assert "pypi" not in text.lower().replace("local-pypi", ""), name
        assert "python" + "hosted" not in text, name


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_pip_finds_everything_for_each_machine(unpacked: Path, machine: str, tmp_path: Path) -> None:
    """Without a network, and with the hashes that the archive names."""
    told = subprocess.run(
        [
            sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--dry-run", "--quiet",
            "--no-index", "--find-links", unpacked / "wheels", "--find-links", unpacked / "pip", "--require-hashes",
            "--only-binary=:all:", f"--platform=manylinux_2_28_{machine}", f"--platform=manylinux_2_27_{machine}",
            f"--platform=manylinux2014_{machine}", f"--python-version={PYTHON}", "--implementation=cp",
            f"--abi=cp{PYTHON.replace('.', '')}", "--abi=abi3", "--abi=none",
            "--target", tmp_path / "target", "--requirement", unpacked / "requirements.txt",
        ],
        capture_output=True, text=True, check=False, env={**os.environ, "PIP_CONFIG_FILE": os.devnull},
    )  # fmt: skip
    assert told.returncode == 0, told.stderr


@pytest.mark.timeout(300)
def test_for_one_user_with_the_network_cut(unpacked: Path, tmp_path: Path) -> None:
    seen = cut_off("user", unpacked, tmp_path)
    assert seen["interfaces"] == ["lo"]
    assert seen["outside"] == "Network is unreachable"
    install = seen["install"]
    assert (install["code"], install["complained"]) == (0, "")
    assert "校验安装包文件" in install["said"]
    assert "guantong doctor 检查本机" in install["said"]
    assert "下一步：编辑" in install["said"]
    job = seen["job"]
    assert job["rows"] >= 3
    assert job["good"] > 5
    assert job["documentation"]
    assert job["api"]
    assert job["page"]
    assert len(job["pages"]) > 20
    assert min(job["pages"].values()) > 1_000
    assert set(seen["first"]) == {"current"}
    assert (seen["upgrade"]["code"], seen["upgrade"]["complained"]) == (0, "")
    assert "Upgraded." in seen["upgrade"]["said"]
    assert seen["second"]["previous"] == seen["first"]["current"] != seen["second"]["current"]
    assert seen["rollback"]["code"] == 0
    assert seen["third"] == {"current": seen["second"]["previous"], "previous": seen["second"]["current"]}
    assert seen["damaged"]["code"] == 1
    assert "markdown_it_py" in seen["damaged"]["complained"]
    assert "安装包已损坏" in seen["damaged"]["complained"]
    assert seen["after"] == seen["third"]
    assert seen["uninstall"]["code"] == 0
    assert seen["left"] == ["guantong.yaml", "var/kept"]
    assert seen["configuration"]


@pytest.mark.timeout(300)
def test_for_the_whole_machine(unpacked: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("root, in folders of its own", "running the tests as root")
    require("systemd-analyze")
    seen = cut_off("system", unpacked, tmp_path, mounts=True)
    install = seen["install"]
    assert install["code"] == 0, install
    assert "创建用户 guantong" in install["said"]
    assert "systemctl enable --now guantong.service" in install["said"]
    names = {unit.name for unit in (DEPLOY / "systemd").glob("*.service")}
    assert seen["units"] == {name: ["/srv/guantong/bin/guantong"] for name in names}
    assert seen["verify"] == []
    assert seen["home"] == "/var/lib/guantong"
    assert seen["modes"] == {
        "/etc/guantong": "750 root:guantong",
        "/etc/guantong/guantong.yaml": "640 root:guantong",
        "/var/lib/guantong": "750 guantong:guantong",
    }
    assert seen["version"].startswith("guantong ")
    assert seen["uninstall"]["code"] == 0, seen["uninstall"]
    assert seen["gone"]
    assert seen["kept"]


# ------------------------------------------------------------------------------------------------ what install.sh refuses


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """An archive without packages: enough for everything that is looked at before the first one is installed."""
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "install.sh").write_bytes((BUNDLE / "install.sh").read_bytes())
    (folder / "install.sh").chmod(0o755)
    describe(folder)
    return folder


def describe(folder: Path, **changed: str) -> None:
    """Writes BUNDLE and its sum."""
    values = {"version": "9.9", "machines": platform.machine(), "pythons": PYTHON, "glibc": "2.5", **changed}
    text = "".join(f"{name}={value}\n" for name, value in values.items())
    (folder / "BUNDLE").write_text(text)
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  BUNDLE\n")


def refused(folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit code and the complaint; nothing may be left behind."""
    prefix = folder.parent / "prefix"
    told = subprocess.run(
        [folder / "install.sh", "--user", "--prefix", prefix, "--python", sys.executable, *arguments],
        capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"], "HOME": str(folder)},
    )  # fmt: skip
    assert not (prefix / "current").exists()
    return told.returncode, told.stderr


@pytest.mark.parametrize(
    ("changed", "arguments", "code", "named"),
    [
        ({"machines": "riscv64"}, [], 1, "this archive has packages for: riscv64"),
        ({"pythons": "3.99"}, [], 1, f"It has them for: 3.99. Found: {sys.executable} (CPython {PYTHON})"),
        ({"glibc": "9.99"}, [], 1, "glibc 9.99 or later is needed"),
        ({}, ["--python", "nowhere"], 1, "--python nowhere is not a program"),
        ({}, ["--python", "/bin/true"], 1, "Found: none"),
        ({}, ["--fast"], 2, "unknown option --fast"),
        ({}, ["--lang", "fr"], 2, "write en or zh"),
        ({}, ["--lang"], 2, "needs a value"),
        ({}, ["--prefix", "/srv/a b"], 2, "only letters, digits"),
        ({}, ["--rollback"], 1, "there is no version before"),
        ({}, ["--uninstall"], 1, "there is no installation"),
        ({"machines": "riscv64"}, ["--lang", "zh"], 1, "本安装包支持：riscv64"),
    ],
)
def test_what_it_refuses_is_named(
    empty: Path, changed: dict[str, str], arguments: list[str], code: int, named: str
) -> None:
    describe(empty, **changed)
    assert refused(empty, *arguments)[0] == code
    assert named in refused(empty, *arguments)[1]


def test_it_does_not_mix_with_what_others_installed(empty: Path) -> None:
    (empty.parent / "prefix" / "bin").mkdir(parents=True)
    code, complaint = refused(empty)
    assert code == 1
    assert "this script did not install" in complaint


def test_a_folder_that_is_no_archive(empty: Path) -> None:
    (empty / "SHA256SUMS").unlink()
    assert refused(empty) == (1, f"install.sh: {empty} is not an unpacked archive of Guantong: BUNDLE or SHA256SUMS is missing\n")  # fmt: skip


def test_every_message_is_in_both_languages() -> None:
    text = (BUNDLE / "install.sh").read_text(encoding="utf-8")
    begun = re.findall(r'\b(?:say|fail) "', text)
    said = r'"((?:[^"\\]|\\.)*)"'
    pairs = re.findall(rf"(?:say|fail) {said}\s+(?:\\\n\s*)?{said}", text)
    assert len(pairs) == len(begun) > 25
    for english, chinese in pairs[1:]:  # the first is that of fail() itself
        assert bool(re.search("[\u4e00-\u9fff]", chinese)) == bool(english), english
        assert not re.search("[\u4e00-\u9fff]", english)
        assert set(re.findall(r"\$\w+", english)) == set(re.findall(r"\$\w+", chinese)), english


@pytest.mark.parametrize(
    "script", [BUNDLE / "install.sh", ROOT / "tests/servers/install-programs"], ids=lambda p: p.name
)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    told = subprocess.run([require("shellcheck"), script], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout


# ------------------------------------------------------------------------------------------------------------- the builder


def wheel(folder: Path, name: str, *requires: str) -> Path:
    """A wheel with nothing but metadata."""
    file = folder / name
    project, version = name.split("-")[:2]
    lines = [f"Name: {project}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requires)]
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(f"{project}-{version}.dist-info/METADATA", "\n".join(["Metadata-Version: 2.4", *lines, "", ""]))
    return file


def test_which_wheel_serves_which_machine(tmp_path: Path) -> None:
    target = builder().Target("aarch64", "3.12")
    for name, serves in {
        "a-1-py3-none-any.whl": True,
        "a-1-py2.py3-none-any.whl": True,
        "a-1-cp312-cp312-manylinux_2_28_aarch64.whl": True,
        "a-1-cp312-cp312-manylinux_2_28_x86_64.whl": False,
        "a-1-cp311-cp311-manylinux_2_28_aarch64.whl": False,
        "a-1-cp39-abi3-manylinux2014_aarch64.manylinux_2_17_aarch64.whl": True,
        "a-1-cp313-abi3-manylinux2014_aarch64.whl": False,
    }.items():
        assert target.serves(tmp_path / name) == serves, name


def test_what_another_machine_needs_besides_is_missed_in_time(tmp_path: Path) -> None:
    """The lock is made on one machine with one Python; markers may ask for more elsewhere."""
    build = builder()
    wheels = [
        wheel(tmp_path, "a-1-py3-none-any.whl", "b>=2; extra == 'more'", "c; platform_machine == 'aarch64'"),
        wheel(tmp_path, "b-2-py3-none-any.whl"),
        wheel(tmp_path, "d-1-py3-none-any.whl"),
    ]
    root = Requirement("a[more]==1")
    assert build.needed(wheels, root, build.Target("x86_64", "3.11")) == set(wheels[:2])
    with pytest.raises(
        build.BundleError, match=r"a-1-py3-none-any.whl needs c.*on aarch64 with Python 3.11; .* no wheel"
    ):
        build.needed(wheels, root, build.Target("aarch64", "3.11"))
    with pytest.raises(build.BundleError, match=r"needs b>=3.*has 2"):
        build.needed(
            [wheel(tmp_path, "a-1-py3-none-any.whl", "b>=3"), wheels[1]],
            Requirement("a"),
            build.Target("x86_64", "3.11"),
        )


def test_a_package_without_a_wheel_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = builder()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    (tmp_path / "requirements.txt").write_text(f"nowhere==1 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(build.BundleError, match=r"no wheel of nowhere==1 for aarch64 and Python 3.13"):
        build.fetch(build.Target("aarch64", "3.13"), tmp_path / "requirements.txt", tmp_path / "out")


def test_the_same_files_make_the_same_archive(tmp_path: Path) -> None:
    build = builder()
    made = []
    for number in range(2):
        folder = tmp_path / str(number) / "guantong"
        (folder / "b").mkdir(parents=True)
        names = ["b/c", "a", "install.sh"]
        for name in names if number else reversed(names):
            (folder / name).write_text(name)
            os.utime(folder / name, (number, number))
        build.pack(folder, tmp_path / f"{number}.tar.gz", 1_600_000_000)
        made.append((tmp_path / f"{number}.tar.gz").read_bytes())
    assert made[0] == made[1]
    with tarfile.open(fileobj=io.BytesIO(made[0])) as tar:
        assert tar.getnames() == ["guantong/a", "guantong/b/c", "guantong/install.sh"]
