"""The grammar of the topics, all below `{root}/v1/`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics of one installation; `root` is `guantong` by default."""

    root: str = "guantong"

    def ledger(self, gateway: str) -> str:
        """collect -> ingest: every message, in order."""
        return f"{self.root}/v1/ledger/{gateway}"

    def sync(self, gateway: str) -> str:
        """collect -> ingest: where shall I go on?"""
        return f"{self.root}/v1/sync/{gateway}"

    def confirmed(self, gateway: str) -> str:
        """ingest -> collect: answers to sync, confirmations, replay requests."""
        return f"{self.root}/v1/confirmed/{gateway}"

    def commands(self, gateway: str) -> str:
        """serve -> collect."""
        return f"{self.root}/v1/commands/{gateway}"

    def committed(self, store: str) -> str:
        """ingest -> serve: what each transaction of the store held."""
        return f"{self.root}/v1/committed/{store}"

    def readings(self, device: str) -> str:
        """For everybody: readings as JSON."""
        return f"{self.root}/v1/readings/{device}"

    def events(self, device: str) -> str:
        """For everybody: events as JSON."""
        return f"{self.root}/v1/events/{device}"

    def birth(self, device: str) -> str:
        """For everybody, retained: what the device's signals are."""
        return f"{self.root}/v1/birth/{device}"

    def status(self, device: str) -> str:
        """For everybody, retained: the device's state with reason and fix."""
        return f"{self.root}/v1/status/{device}"

    def gateway_status(self, gateway: str) -> str:
        """For everybody, retained: the gateway's state; the broker publishes the will here when it dies."""
        return f"{self.root}/v1/status/gateway/{gateway}"

    def last(self, topic: str) -> str:
        """The last level of a topic: the gateway, device or store it is about."""
        return topic.rsplit("/", 1)[-1]
