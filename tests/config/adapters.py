"""Two adapters as the configuration sees them: only their models matter here."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

from adapters import registry
from adapters.contract import ConfigError
from schemas.model import Duration, Strict
from schemas.profile import ModbusAddress, ModbusRules, OpcUaAddress, OpcUaRules


class TcpSettings(Strict):
    host: str
    port: int = Field(default=502, ge=1, le=65535)
    framing: Literal["tcp", "rtu"] = "tcp"
    timeout: Duration = 1.0


class UnitSettings(Strict):
    unit: int = Field(default=1, ge=0, le=247)


class Security(Strict):
    policy: Literal["none", "Basic256Sha256"]
    key: Path | None = None
    key_password: SecretStr | None = None


class SessionSettings(Strict):
    endpoint: str
    security: Security
    user: str | None = None
    password: SecretStr | None = None


class ServerSettings(Strict):
    root: str | None = None


class ModbusLike:
    protocol: ClassVar[str] = "modbus"
    LinkSettings: ClassVar[type[BaseModel]] = TcpSettings
    DeviceSettings: ClassVar[type[BaseModel]] = UnitSettings
    Address: ClassVar[type[BaseModel]] = ModbusAddress
    Rules: ClassVar[type[BaseModel]] = ModbusRules


class OpcUaLike:
    protocol: ClassVar[str] = "opcua"
    LinkSettings: ClassVar[type[BaseModel]] = SessionSettings
    DeviceSettings: ClassVar[type[BaseModel]] = ServerSettings
    Address: ClassVar[type[BaseModel]] = OpcUaAddress
    Rules: ClassVar[type[BaseModel]] = OpcUaRules


ADAPTERS: dict[str, Any] = {"modbus": ModbusLike, "opcua": OpcUaLike}


def load(name: str) -> Any:
    if name == "broken":
        raise ConfigError("cannot be imported", reason="adapter_broken")
    if name not in ADAPTERS:
        near = difflib.get_close_matches(name, ADAPTERS, n=1)
        raise ConfigError("unknown", reason="adapter_unknown", fix_en=f"Write adapter: {near}.")
    return ADAPTERS[name]


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers both in place of what is installed."""
    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(registry, "available", lambda: dict.fromkeys(ADAPTERS))
