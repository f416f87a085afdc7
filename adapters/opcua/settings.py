"""What is configured for an OPC UA link and for a device on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from schemas.model import Duration, Strict

Policy = Literal["none", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"]


class Security(Strict):
    """How the channel is protected (OPC 10000-7 §6.6). `security: none` is the explicit yes to no protection at all."""

    policy: Policy
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    certificate: Path | None = Field(default=None, description="The gateway's application certificate (PEM or DER).")
    key: Path | None = Field(default=None, description="Its private key (PEM or DER).")
    key_password: SecretStr | None = None
    server_certificate: Path | None = Field(
        default=None, description="The server's certificate (PEM or DER); no other is accepted."
    )

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return {"policy": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _coherent(self) -> Security:
        if self.policy == "none":
            return self
        missing = [name for name in ("certificate", "key", "server_certificate") if getattr(self, name) is None]
        if missing:
            raise ValueError(
                f"policy {self.policy} needs {', '.join(missing)}: paths of the gateway's certificate and key and of "
                "the server's certificate, without which anybody could pose as the server"
            )
        return self


class LinkSettings(Strict):
    """One OPC UA server."""

    endpoint: str = Field(description="opc.tcp://HOST:PORT/PATH, as the server's manual or `check` gives it.")
    security: Security = Field(description="`none` (chosen explicitly), or policy, mode and certificates.")
    user: str | None = Field(default=None, description="User name; anonymous without it.")
    password: SecretStr | None = None
    timeout: Duration = Field(default=5.0, gt=0, description="How long an answer may take.")
    session_timeout: Duration = Field(
        default=60.0, ge=5, description="How long the server keeps a session whose client has gone."
    )
    heartbeat: Duration = Field(default=10.0, gt=0, description="How often the server's state and clock are read.")
    publish_requests: int = Field(default=3, ge=1, le=50, description="PublishRequests in flight.")
    items_per_subscription: int = Field(
        default=5_000, ge=1, description="Most monitored items in one subscription, if the server does not allow fewer."
    )
    queue: int = Field(
        default=200_000, ge=1, description="Rows held for a slow outbox before the newest of each signal alone is kept."
    )
    item_retry: Duration = Field(
        default=30.0, gt=0, description="First pause before a refused item is tried again; doubles each time."
    )
    item_retry_max: Duration = Field(default=600.0, gt=0, description="Longest pause before it is tried again.")

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{value!r} is not an endpoint: {error}") from None
        if parts.scheme != "opc.tcp" or not parts.hostname:
            raise ValueError(
                f"{value!r} is not an endpoint: write opc.tcp://HOST:PORT, e.g. opc.tcp://192.168.1.20:4840"
            )
        if "@" in parts.netloc:
            raise ValueError("an endpoint holds no user and no password: write `user:` and `password:`")
        return value if port is not None else value.replace(parts.netloc, f"{parts.netloc}:4840", 1)

    @model_validator(mode="after")
    def _coherent(self) -> LinkSettings:
        if self.password is not None and self.user is None:
            raise ValueError("`password` needs `user`")
        return self


class DeviceSettings(Strict):
    """One device behind the server."""

    root: str | None = Field(
        default=None,
        description="Where this device's paths begin, instead of the profile's root: a NodeId, or a path below "
        "Objects in which * matches any characters.",
    )
