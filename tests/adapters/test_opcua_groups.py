"""What a group says of its signals, on its way to the adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import load_config
from gateway.config.plan import Plan
from gateway.config.resolve import resolve
from schemas.documents import DocumentError
from schemas.profile import Group, OpcUaRules

CONFIG = """
links:
  - id: line
    adapter: opcua
    settings: {endpoint: "opc.tcp://127.0.0.1:4840", security: none}
    devices:
      - id: press
        rules: {encoding: GBK, deadband: gateway}
        groups:
          fast: {period: 500ms, sampling: 0, queue: 50, discard: newest, trigger: status-value-timestamp, deadband: {absolute: 0.5}}
          slow: {period: 10s, mode: both, poll: 2min, deadband: {percent: 2}}
        signals:
          - {name: a, group: fast, scale: 0.1, address: {node: "i=1"}}
          - {name: b, group: fast, deadband: {absolute: 3}, address: {node: "i=2", sampling: 1s, trigger: status}}
          - {name: c, group: fast, kind: state, type: int32, address: {node: "i=3"}}
          - {name: d, group: fast, kind: text, type: string, address: {node: "i=4"}}
          - {name: e, group: fast, store: every, address: {node: "i=5"}}
          - {name: f, group: slow, range: [0, 50], address: {node: "i=6"}}
          - {name: g, group: slow, address: {node: "i=7"}}
          - {name: h, group: fast, address: {node: "i=8"}}
          - {name: i, address: {node: "i=9"}}
        override:
          h: {deadband: null}
"""


def plan_of(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "guantong.yaml"
    path.write_text(text, encoding="utf-8")
    return resolve(load_config(path))


def test_a_group_reaches_the_adapter(tmp_path: Path) -> None:
    (link,) = plan_of(tmp_path, CONFIG).links
    (device,) = link.spec().devices
    assert device.groups == {"fast": 0.5, "slow": 10.0, "default": 1.0}
    fast, slow = device.options["fast"], device.options["slow"]
    assert (fast.sampling, fast.queue, fast.discard, fast.trigger) == (0.0, 50, "newest", "status-value-timestamp")
    assert (slow.mode, slow.poll) == ("both", 120.0)
    assert device.options["default"] == Group()
    assert isinstance(device.rules, OpcUaRules)
    assert (device.rules.encoding, device.rules.deadband) == ("gbk", "gateway")
    bands = {point.signal: point.deadband for point in device.points}
    assert bands == {"a": 5, "b": 3, "c": 0, "d": 0, "e": 0, "f": 1, "g": 0, "h": 0, "i": 0}


def test_a_deadband_of_the_group_does_not_change_the_revision(tmp_path: Path) -> None:
    before = plan_of(tmp_path, CONFIG)
    after = plan_of(tmp_path, CONFIG.replace("absolute: 0.5", "absolute: 0.7"))
    assert [s.revision for s in before.signals] == [s.revision for s in after.signals]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("encoding: klingon", "encoding: GBK"), ("mode: sometimes", "mode: both"), ("trigger: never", "trigger: status}")],
)
def test_what_is_wrong_is_named(tmp_path: Path, wrong: str, right: str) -> None:
    text = CONFIG.replace(right, wrong + ("}" if right.endswith("}") else ""))
    assert text != CONFIG
    with pytest.raises(DocumentError) as caught:
        plan_of(tmp_path, text)
    assert wrong.partition(": ")[2] in str(caught.value)
