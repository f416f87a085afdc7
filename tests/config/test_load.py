"""Reading the configuration: file, environment, secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config._environment import VARIABLES
from gateway.config.load import check_config, load_config
from gateway.config.models import ClockSettings, Config, Secret
from gateway.config.secrets import resolve_secret
from schemas.documents import DocumentError
from schemas.library import load_profile


def write(folder: Path, text: str) -> Path:
    path = folder / "guantong.yaml"
    path.write_text(text)
    return path


def test_nothing_at_all_gives_the_embedded_defaults() -> None:
    config = load_config(None, {})
    assert config.bus.embedded
    assert config.store.url is None
    assert config.api.loopback
    assert config.data_dir == Path.cwd() / "var"


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "data_dir: data\nbus: {host: b, tls: {ca: ca.pem}, password: {file: pw}}\n")
    config = load_config(path, {})
    assert config.data_dir == tmp_path / "data"
    assert config.bus.tls is not None
    assert config.bus.tls.ca == tmp_path / "ca.pem"
    assert config.bus.password == Secret(file=tmp_path / "pw")
    assert config.base == tmp_path


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "bus: {port: 1884, root: shop}\nstore: {url: sqlite:///a.db}\n")
    environ = {
        "GUANTONG_STORE_URL": "postgresql://guantong:pw@db/guantong",
        "GUANTONG_BUS_HOST": "broker",
        "GUANTONG_BUS_PORT": "1885",
        "GUANTONG_BUS_PASSWORD": "hunter2",
        "GUANTONG_DATA_DIR": "elsewhere",
        "GUANTONG_API_PORT": "",
    }
    config = load_config(path, environ)
    assert (config.bus.host, config.bus.port, config.bus.root) == ("broker", 1885, "shop")
    assert config.store.url == environ["GUANTONG_STORE_URL"]
    assert config.bus.password is not None
    assert resolve_secret(config.bus.password, environ) == "hunter2"
    assert config.data_dir == Path.cwd() / "elsewhere"
    assert config.api.port == 8000
    assert load_config(None, {"GUANTONG_CONFIG": str(path)}).bus.port == 1884


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DocumentError, match=r"^environment variable GUANTONG_BUS_PORT: found 'x', expected a whole number\.$"
    ):
        load_config(write(tmp_path, "bus: {root: a}\n"), {"GUANTONG_BUS_PORT": "x"})


def test_every_variable_overrides_a_key_that_exists() -> None:
    for variable in VARIABLES:
        model: object = Config()
        for key in variable.place:
            assert hasattr(model, key), variable
            model = getattr(model, key)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("+8h", 28800.0), ("-90s", -90.0), ("8h", 28800.0), (-1.5, -1.5), (None, None), ("- 5min", -300.0)],
)
def test_a_clock_offset_has_either_sign(written: object, seconds: float | None) -> None:
    assert ClockSettings.model_validate({"offset": written}).offset == seconds


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(DocumentError, match="no such file"):
        load_config(Path("/nowhere/guantong.yaml"), {})
    assert len(check_config(Path("/nowhere/guantong.yaml"), {})) == 1


@pytest.mark.parametrize(
    "text", ["- 1\n- 2\n", "just text\n", "links: 5\n", "links: [1]\n", "assets: {a: b}\n", "bus:\n"]
)
def test_files_of_another_form(tmp_path: Path, text: str) -> None:
    with pytest.raises(DocumentError):
        load_config(write(tmp_path, text), {})
    assert check_config(write(tmp_path, text), {})


def test_a_secret_comes_from_the_first_line_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\nnot this\n")
    assert resolve_secret(Secret(file=tmp_path / "secret")) == "s3cret"
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(DocumentError, match="first line is empty"):
        resolve_secret(Secret(file=tmp_path / "empty"))


def test_a_secret_of_the_environment() -> None:
    assert resolve_secret(Secret(env="BUS_PW"), {"BUS_PW": "x"}) == "x"
    with pytest.raises(DocumentError, match=r"BUS_PV, which is not set.*Did you mean BUS_PW\?"):
        resolve_secret(Secret(env="BUS_PV"), {"BUS_PW": "x"})
    with pytest.raises(DocumentError, match="which is empty"):
        resolve_secret(Secret(env="BUS_PW"), {"BUS_PW": ""})


def test_check_reads_the_secrets_and_load_does_not(tmp_path: Path) -> None:
    path = write(tmp_path, "bus: {host: b, password: {env: NOT_SET_HERE}}\n")
    assert load_config(path, {}).bus.password is not None
    assert [p.line for p in check_config(path, {})] == [1]
    assert check_config(path, {"NOT_SET_HERE": "x"}) == []


@pytest.mark.parametrize(
    "content", ["root:$6$tops:19000:0\n", "{psk: tops, ssid: tops}\n", "a: *tops\n", "tops: 1\ntops: 2\n"]
)
def test_a_file_that_is_no_profile_is_not_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "other.yaml").write_text(content)
    path = write(
        tmp_path,
        "links:\n- {id: l, adapter: modbus, settings: {host: h}, devices: [{id: d, profile: ./other.yaml, settings: {unit: 1}}]}\n",
    )
    (problem,) = check_config(path, {})
    assert problem.file == str(tmp_path / "other.yaml")
    for language in ("en", "zh"):
        assert "profile" in problem.text(language)
        assert "tops" not in problem.text(language)


def test_a_device_is_no_profile() -> None:
    for path in ("/dev/zero", "/dev/null"):
        with pytest.raises(DocumentError, match="no regular file"):
            load_profile(path)
