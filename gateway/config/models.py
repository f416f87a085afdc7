"""The configuration file, as models. `docs/configuration.md` and the JSON Schema are generated from here."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from schemas.bilingual import Bilingual
from schemas.documents import Document
from schemas.model import Asset, Counter, Deadband, Duration, Id, SignalName, Strict, Text, parse_duration
from schemas.profile import EventClause, Group, ProfileSignal


def _from_base(path: Path, info: ValidationInfo) -> Path:
    """Relative paths are relative to the file that they are written in, never to where the gateway was started."""
    base = (info.context or {}).get("base")
    return path if base is None else Path(base) / path.expanduser()


FilePath = Annotated[Path, AfterValidator(_from_base), WithJsonSchema({"type": "string", "format": "path"})]


def _signed_duration(value: Any) -> float:
    if isinstance(value, str) and value[:1] in ("+", "-"):
        seconds = parse_duration(value[1:].strip())
        return -seconds if value[0] == "-" else seconds
    return parse_duration(value)


SignedDuration = Annotated[float, BeforeValidator(_signed_duration, json_schema_input_type=str | float)]
"""Seconds, of either sign: `+8h`, `-90s`, `8h`, `-1.5`."""


class Secret(Strict):
    """A secret is never written into the YAML: it comes from the environment or from a file."""

    env: str | None = Field(default=None, description="Name of an environment variable.")
    file: FilePath | None = Field(
        default=None, description="A file whose first line is the secret; relative to this file."
    )

    @model_validator(mode="before")
    @classmethod
    def _not_in_clear(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(
                Bilingual(
                    "a secret does not belong into this file: write {env: NAME} or {file: /path}",
                    "密码和密钥不应写在本文件中：请写 {env: NAME} 或 {file: /path}",
                )
            )
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError(
                Bilingual(
                    "write {env: NAME} or {file: /path}, one of the two", "请写 {env: NAME} 或 {file: /path} 之一"
                )
            )
        return self


class GatewaySettings(Strict):
    """Who this gateway is."""

    id: Id = "gateway"
    name: Text = Text(zh="贯通网关", en="Guantong gateway")
    timezone: str = Field(default="Asia/Shanghai", description="IANA name; local days and shifts are reckoned in it.")

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                Bilingual(
                    f"{value!r} is not a time zone: write an IANA name such as Asia/Shanghai",
                    f"{value!r} 不是时区：请写 IANA 名称，如 Asia/Shanghai",
                )
            ) from None
        return value


class BusTls(Strict):
    """TLS towards the broker."""

    ca: FilePath | None = Field(default=None, description="CA certificates (PEM); the system's by default.")
    cert: FilePath | None = Field(default=None, description="The gateway's certificate (PEM), with `key`.")
    key: FilePath | None = Field(default=None, description="Its private key (PEM).")
    key_password: Secret | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError(
                Bilingual(
                    "`cert` and `key` belong together: write both or neither", "`cert` 与 `key` 须同时填写或都不填写"
                )
            )
        return self


class BusSettings(Strict):
    """The MQTT broker. Without `host` the embedded one is started on loopback."""

    host: str | None = Field(default=None, description="Host of the broker; none: the embedded broker.")
    port: int = Field(default=1883, ge=1, le=65535)
    root: str = Field(
        default="guantong", pattern=r"^[^+#\x00/]+(/[^+#\x00/]+)*$", description="First levels of every topic."
    )
    protocol: Literal["5", "3.1.1"] = "5"
    username: str | None = None
    password: Secret | None = None
    tls: BusTls | None = None
    confirm: Literal["store", "broker"] = Field(
        default="store",
        description="What frees the outbox. `broker` is not exactly once, and shown as such.",
    )
    courtesy: bool = Field(
        default=True, description="Publish readings/, events/, birth/ and status/ for other subscribers."
    )

    @field_validator("protocol", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) else value

    @property
    def embedded(self) -> bool:
        """True when the gateway brings its own broker."""
        return self.host is None


class StoreSettings(Strict):
    """The store. Without `url` an SQLite file in `data_dir`."""

    url: str | None = Field(
        default=None,
        description="sqlite:///PATH or postgresql://USER@HOST:PORT/DATABASE (TimescaleDB is recognised by itself).",
    )
    password: Secret | None = None
    retention: Duration | None = Field(default=None, description="How long raw readings are kept; for ever by default.")


class ApiSettings(Strict):
    """The REST API."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)

    @property
    def loopback(self) -> bool:
        """True when only this machine can connect; everything else needs API keys."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class MetricsSettings(Strict):
    """Prometheus metrics of collect and ingest; serve has its own at /metrics."""

    host: str = "127.0.0.1"
    collect_port: int = Field(default=9101, ge=0, le=65535, description="0: a free port, written to the log.")
    ingest_port: int = Field(default=9102, ge=0, le=65535)
    enabled: bool = True


class OutboxSettings(Strict):
    """The outbox: what holds the readings until the store has confirmed them."""

    durability: Literal["power", "process"] = Field(
        default="power",
        description="power: a message is sent once it would survive a power cut; process: a kill of the process.",
    )
    budget: int = Field(default=8 * 1024**3, ge=1024**2, description="Largest size on disk, in bytes.")
    policy: Literal["oldest", "newest", "thin", "block"] = Field(
        default="oldest",
        description="What gives way when the budget is spent.",
    )
    keep_confirmed: Duration = Field(
        default=600.0, ge=600.0, description="How long confirmed messages are kept, at least ten minutes."
    )

    @field_validator("budget", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        if isinstance(value, str):
            text = value.strip().lower().removesuffix("b")
            for suffix, factor in (("k", 1024), ("m", 1024**2), ("g", 1024**3), ("t", 1024**4)):
                if text.endswith(suffix):
                    try:
                        return int(float(text[:-1]) * factor)
                    except ValueError:
                        break
        return value


class ClockSettings(Strict):
    """How a device's clock is judged."""

    tolerance: Duration = Field(
        default=60.0, description="A device whose clock is off by more gets the gateway's time."
    )
    offset: SignedDuration | None = Field(
        default=None,
        description="A known constant offset of the device's clock, subtracted: +8h for Beijing time sent as UTC.",
    )


class SignalOverride(Strict):
    """What this device has otherwise than its profile; `disabled: true` leaves the signal out."""

    disabled: bool = False
    unit: str | None = None
    source_unit: str | None = None
    scale: float | None = None
    offset: float | None = None
    range: tuple[float, float] | None = None
    deadband: Deadband | None = None
    silence: Duration | None = None
    store: Literal["change", "every"] | None = None
    asset: Id | None = None
    group: str | None = None
    description: Text | None = None
    enum: dict[int, Text] | None = None
    counter: Counter | None = None
    address: dict[str, Any] | None = Field(
        default=None, description="Keys of the address that differ; a key with null is taken out."
    )


class DeviceSettings(Strict):
    """A device on a link: what it is (a profile, or signals written here), and to which asset it belongs."""

    id: Id
    name: Text = Text()
    asset: Id | None = Field(
        default=None, description="The asset it belongs to; by default one with the device's own id."
    )
    profile: str | None = Field(default=None, description="Name of a shipped profile, or a path relative to this file.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="The adapter's own settings for a device, e.g. `unit: 1`."
    )
    rules: dict[str, Any] = Field(default_factory=dict, description="Overrides of the profile's rules.")
    groups: dict[str, Group] = Field(default_factory=dict)
    signals: tuple[ProfileSignal, ...] = Field(default=(), description="Signals beside, or without, a profile.")
    events: tuple[EventClause, ...] = ()
    override: dict[SignalName, SignalOverride] = Field(default_factory=dict)
    clock: ClockSettings = ClockSettings()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.profile is None and not self.signals:
            raise ValueError(
                Bilingual(
                    f"device {self.id}: give a `profile`, or `signals`, or both",
                    f"设备 {self.id}：请填写 `profile` 或 `signals`，或两者都写",
                )
            )
        return self


class LinkSettings(Strict):
    """A link: one OPC UA session, one TCP connection, one serial line."""

    id: Id
    adapter: str = Field(description="opcua, modbus, or the name under which a third party's adapter is registered.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="The adapter's own settings, e.g. host and port."
    )
    devices: tuple[DeviceSettings, ...] = Field(min_length=1)
    enabled: bool = True


class Config(Strict):
    """The whole file."""

    gateway: GatewaySettings = GatewaySettings()
    data_dir: FilePath = Field(
        default=Path("var"),
        validate_default=True,
        description="Where outbox, SQLite store and logs lie; relative to this file.",
    )
    writes: Literal["disabled", "enabled"] = Field(
        default="disabled",
        description="enabled: reads of Modbus values with `select` may write the selector. Shown in /health; commands to devices are refused in "
        "this version in either case.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    bus: BusSettings = BusSettings()
    store: StoreSettings = StoreSettings()
    api: ApiSettings = ApiSettings()
    metrics: MetricsSettings = MetricsSettings()
    outbox: OutboxSettings = OutboxSettings()
    assets: tuple[Asset, ...] = ()
    links: tuple[LinkSettings, ...] = ()

    _base: Path = PrivateAttr(default_factory=Path.cwd)
    _document: Document = PrivateAttr(default_factory=lambda: Document("configuration", {}))

    @property
    def base(self) -> Path:
        """The directory that relative paths of the file start from."""
        return self._base

    @property
    def document(self) -> Document:
        """The file it was read from, for messages that name a place."""
        return self._document
