"""What is configured for an OPC UA link and for a device on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from schemas.bilingual import Bilingual
from schemas.model import Duration, Strict

Policy = Literal[
    "auto", "none", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss", "Basic128Rsa15", "Basic256"
]
DEPRECATED: Final = ("Basic128Rsa15", "Basic256")
"""Policies of which the standard itself says that they protect no longer (OPC 10000-7 §6.6)."""
Fault = Literal["expired", "host_name", "application_uri", "weak", "revocation_unknown"]


class Security(Strict):
    """How the channel is protected (OPC 10000-7 §6.6). `security: auto` takes the strongest that the server offers at the first contact and
    keeps to it; `security: none` is the explicit yes to no protection at all."""

    policy: Policy
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    certificate: Path | None = Field(
        default=None,
        description="The gateway's application certificate (PEM or DER), with `key`; by default its own one (`guantong certs show own`).",
    )
    key: Path | None = Field(default=None, description="The private key of `certificate` (PEM or DER).")
    key_password: SecretStr | None = None
    server_certificate: Path | None = Field(
        default=None,
        description="The server's certificate (PEM or DER); no other is accepted. Without it those count that were trusted with "
        "`guantong certs trust`.",
    )
    allow_deprecated: bool = Field(
        default=False, description="The explicit yes to Basic128Rsa15 and Basic256, which no longer protect."
    )
    accept: tuple[Fault, ...] = Field(
        default=(),
        description="Faults of the server's certificate that are overlooked, although it is trusted, until it is renewed.",
    )

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"policy": value}
        if isinstance(value, dict) and isinstance(value.get("policy"), str):
            value = {**value, "policy": value["policy"].replace("_", "")}  # as the standard's URIs write it
        return value

    @model_validator(mode="after")
    def _coherent(self) -> Security:
        if self.policy in DEPRECATED and not self.allow_deprecated:
            raise ValueError(
                Bilingual(
                    f"policy {self.policy} is deprecated and protects no longer; take Basic256Sha256 or `auto`, or write "
                    "`allow_deprecated: true` beside it for a server that has nothing better",
                    f"策略 {self.policy} 已废弃，不再提供保护：请用 Basic256Sha256 或 `auto`；若服务器别无更好的策略，"
                    "请同时写 `allow_deprecated: true`",
                )
            )
        if (self.certificate is None) != (self.key is None):
            raise ValueError(
                Bilingual(
                    "`certificate` and `key` go together; without both the gateway's own certificate is used",
                    "`certificate` 与 `key` 须同时填写；都不写则使用网关自己的证书",
                )
            )
        if self.policy == "auto" and "mode" in self.model_fields_set:
            raise ValueError(
                Bilingual(
                    "`auto` chooses the mode by itself: leave `mode` out, or name a policy",
                    "`auto` 自行选择模式：请去掉 `mode`，或写明策略",
                )
            )
        return self


def _listed(value: Any) -> Any:
    """`endpoint: [a, b]` is the first endpoint and its alternatives."""
    if isinstance(value, dict) and isinstance(value.get("endpoint"), list | tuple):
        if not value["endpoint"]:
            raise ValueError(
                Bilingual(
                    "`endpoint` is an empty list: write at least one opc.tcp://HOST:PORT",
                    "`endpoint` 是空列表：请至少写一个 opc.tcp://HOST:PORT",
                )
            )
        first, *others = value["endpoint"]
        return {**value, "endpoint": first, "alternatives": tuple(others)}
    return value


class LinkSettings(Strict):
    """One OPC UA server."""

    endpoint: str = Field(
        description="opc.tcp://HOST:PORT/PATH, as the server's manual or `guantong browse --endpoints` gives it; a list for redundant "
        "servers, the preferred one first.",
        json_schema_extra=lambda schema: schema.update(
            {"type": ["string", "array"], "items": {"type": "string"}, "minItems": 1}
        ),
    )
    alternatives: tuple[str, ...] = Field(
        default=(), description="Further endpoints of redundant servers; `endpoint: [a, b]` says the same in short."
    )
    security: Security = Field(
        description="`auto` (the strongest at the first contact, kept from then on), `none` (no protection, chosen explicitly), or policy "
        "and mode."
    )
    user: str | None = Field(default=None, description="User name; anonymous without it.")
    password: SecretStr | None = None
    allow_clear_password: bool = Field(
        default=False,
        description="The explicit yes to a password that goes over the wire in clear, where the server knows no other way.",
    )
    user_certificate: Path | None = Field(
        default=None, description="Certificate (PEM or DER) by which the gateway signs in as a user, with `user_key`."
    )
    user_key: Path | None = Field(default=None, description="Its private key (PEM or DER).")
    user_key_password: SecretStr | None = None
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

    @model_validator(mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return _listed(value)

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        return _checked(value)

    @field_validator("alternatives")
    @classmethod
    def _alternatives(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_checked(one) for one in value)

    @model_validator(mode="after")
    def _coherent(self) -> LinkSettings:
        if self.password is not None and self.user is None:
            raise ValueError(Bilingual("`password` needs `user`", "`password` 需要同时写 `user`"))
        if (self.user_certificate is None) != (self.user_key is None):
            raise ValueError(
                Bilingual(
                    "`user_certificate` and `user_key` go together", "`user_certificate` 与 `user_key` 须同时填写"
                )
            )
        if self.user is not None and self.user_certificate is not None:
            raise ValueError(
                Bilingual(
                    "a session has one identity: `user` with `password`, or `user_certificate` with `user_key`",
                    "一个会话只有一种身份：`user` 与 `password`，或 `user_certificate` 与 `user_key`",
                )
            )
        if len(set(self.endpoints)) < len(self.endpoints):
            raise ValueError(Bilingual("an endpoint stands twice in the list", "列表中有重复的端点"))
        return self

    @property
    def endpoints(self) -> tuple[str, ...]:
        """All endpoints, the preferred one first."""
        return (self.endpoint, *self.alternatives)

    def at(self, endpoint: str) -> Self:
        """The same settings for one of the endpoints alone."""
        return self.model_copy(update={"endpoint": endpoint, "alternatives": ()})


def _checked(value: str) -> str:
    """An endpoint with its port. Raises ValueError."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(
            Bilingual(f"{value!r} is not an endpoint: {error}", f"{value!r} 不是端点地址：{error}")
        ) from None
    if parts.scheme != "opc.tcp" or not parts.hostname:
        raise ValueError(
            Bilingual(
                f"{value!r} is not an endpoint: write opc.tcp://HOST:PORT, e.g. opc.tcp://192.168.1.20:4840",
                f"{value!r} 不是端点地址：请写 opc.tcp://HOST:PORT，如 opc.tcp://192.168.1.20:4840",
            )
        )
    if "@" in parts.netloc:
        raise ValueError(
            Bilingual(
                "an endpoint holds no user and no password: write `user:` and `password:`",
                "端点地址中不含用户名和密码：请写 `user:` 与 `password:`",
            )
        )
    return value if port is not None else value.replace(parts.netloc, f"{parts.netloc}:4840", 1)


class DeviceSettings(Strict):
    """One device behind the server."""

    root: str | None = Field(
        default=None,
        description="Where this device's paths begin, instead of the profile's root: a NodeId, or a path below "
        "Objects in which * matches any characters.",
    )
