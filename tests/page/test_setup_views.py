"""Connecting devices, point tables, changes and rollback in Chromium, against a whole gateway and simulated machines."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from gateway.api.keys import KeyFile
from gateway.cli.app import app
from schemas.modbus import ModbusType
from tests.page.browser import DESKTOP, PHONE, Browser, browsing
from tests.page.hall import DRAFTED, ROWS, Hall, accessible, applied, at_peace, drop, offered, press_until, type_in
from tests.page.test_views import shot
from tests.servers.foreign import NodeOpcUaServer
from tests.servers.processes import HOST

pytestmark = [pytest.mark.usefixtures("chromium"), pytest.mark.chain, pytest.mark.xdist_group("page-setup")]

LOCALES = {"zh": "zh-CN", "en": "en-GB"}


@pytest.fixture(scope="module")
def one_hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    made = Hall(tmp_path_factory.mktemp("hall"))
    yield made
    made.close()


@pytest.fixture
def hall(one_hall: Hall) -> Iterator[Hall]:
    """The same for all tests here, which find it as it was at the beginning."""
    yield one_hall
    one_hall.reset()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as made:
        yield made


@pytest.mark.parametrize(
    ("language", "size", "colour"), [("zh", PHONE, "dark"), ("en", DESKTOP, "light")], ids=["zh", "en"]
)
async def test_an_opc_ua_machine_from_its_address_to_live_values(
    browser: Browser, hall: Hall, language: str, size: tuple[int, int], colour: str
) -> None:
    device = f"mill-{language}"
    await browser.open(f"{hall.base}#/devices", size, LOCALES[language], colour)
    await browser.click("nav a[href='#/connect']")
    await offered(browser, hall)
    assert "opc40501-machinetool" in await browser.text("#connect-known")
    assert await browser.evaluate("document.querySelector('#connect-device [name=profile]').value") != ""
    await browser.fill("#connect-filter [name=filter]", "*FeedOverride*")
    await browser.press("Enter")
    await browser.until(f"{ROWS} > 0 && document.querySelector('#connect-tree .what small')")
    await browser.click("#connect-tree [aria-checked]")
    await browser.click("#connect-node-read")
    await browser.until("document.querySelector('#connect-node-reading .reading')")
    assert await browser.evaluate("document.querySelector('#connect-node-reading .reading').dataset.quality") == "good"
    assert await browser.evaluate("document.querySelector('#connect-tree [aria-checked=true] .value').textContent")
    await accessible(browser, "connect")
    await shot(browser, f"setup-{language}-connect")
    await browser.choose("#connect-device [name=profile]", "")
    await browser.fill("#connect-device [name=id]", device)
    await browser.fill("#connect-device [name=zh]", "加工中心")
    await browser.fill("#connect-device [name=en]", "Mill")
    await browser.click("#connect-add")
    await browser.until(DRAFTED)
    told = await browser.text("#changes-difference")
    assert device in told
    assert {"zh": "不中断任何设备", "en": "No device is interrupted"}[language] in told
    await accessible(browser, "changes")
    await shot(browser, f"setup-{language}-changes")
    await applied(browser)
    await browser.click("#changes-told a")
    await browser.fill("#values-filters input", device)
    await browser.until("document.querySelectorAll('#values-rows .row[data-signal]').length === 1")
    await browser.until("document.querySelector('#values-rows .row').dataset.quality === 'good'")
    await browser.click("nav a[href='#/devices']")
    await browser.until(f"document.querySelector('li[data-device={device}]')?.dataset.state === 'connected'")
    await at_peace(browser, hall.base)


async def test_a_server_that_nobody_has_trusted_yet_and_a_password(
    browser: Browser, hall: Hall, node_opcua_server: NodeOpcUaServer
) -> None:
    server = node_opcua_server
    await browser.open(f"{hall.base}#/connect")
    await browser.until("!document.querySelector('#connect-steps').hidden")
    await browser.fill("[name=endpoint]", server.endpoint)
    await browser.press("Enter")
    await browser.until("document.querySelectorAll('#connect-endpoints input').length > 2")
    assert await browser.evaluate("document.querySelector('[name=security]:checked').value") == '"auto"'
    await browser.fill("[name=user]", server.first["user"])
    await browser.fill("[name=password]", server.first["password"])
    await browser.press("Enter")
    await browser.until("document.querySelector('#connect-where-error .fix')")
    command = re.search(r"guantong (certs trust \w+)", await browser.text("#connect-where-error .fix"))
    assert command
    trusted = CliRunner().invoke(app, [*command[1].split(), "--config", str(hall.gateway.config)])
    assert trusted.exit_code == 0, trusted.output
    await browser.click("#connect-browse")
    await browser.until(f"{ROWS} > 0")
    await browser.fill("#connect-filter [name=filter]", "Counter")
    await browser.press("Enter")
    await browser.until("document.querySelector('#connect-tree .what small')")
    await browser.click("#connect-all")
    await browser.fill("#connect-device [name=id]", "stranger")
    await browser.click("#connect-add")
    await browser.until(DRAFTED)
    kept = str(await browser.evaluate("JSON.stringify({...sessionStorage})"))
    assert "stranger" in kept
    assert server.first["password"] not in kept
    await applied(browser)
    await browser.click("nav a[href='#/devices']")
    await browser.until("document.querySelector('li[data-device=stranger]')?.dataset.state === 'connected'")
    assert server.first["password"] not in hall.gateway.config.read_text(encoding="utf-8")
    await at_peace(browser, hall.base, 502)


async def test_by_keyboard_alone(browser: Browser, hall: Hall) -> None:
    await browser.open(f"{hall.base}#/connect")
    await browser.until("!document.querySelector('#connect-steps').hidden")
    await browser.evaluate("void document.querySelector('[name=protocol]').focus()")
    await browser.press("Tab")
    await type_in(browser, hall.endpoint)
    await browser.press("Enter")
    await browser.until("document.activeElement.name === 'security'")
    await press_until(browser, "ArrowDown", "document.activeElement.value === '\"none\"'")
    await press_until(browser, "Tab", "document.activeElement.id === 'connect-browse'")
    await browser.press("Enter")
    await browser.until("document.activeElement.getAttribute('role') === 'treeitem'")
    level = "document.activeElement.getAttribute('aria-level')"
    for name in ("Machines", "GT-MC850_2026-001", "Monitoring", "Spindle"):
        await press_until(
            browser, "ArrowDown", f"document.activeElement.querySelector('.what').textContent === '{name}'"
        )
        before = int(await browser.evaluate(ROWS))
        await browser.press("ArrowRight")
        await browser.until(f"{ROWS} > {before}")
    await browser.press("ArrowRight")
    assert await browser.evaluate(level) == "5"
    await browser.press("ArrowLeft")
    assert await browser.evaluate(level) == "4"
    await browser.press("ArrowLeft")
    assert await browser.evaluate("document.activeElement.getAttribute('aria-expanded')") == "false"
    await browser.press("ArrowRight")
    await browser.until("document.activeElement.getAttribute('aria-expanded') === 'true'")
    await press_until(browser, "ArrowDown", "document.activeElement.getAttribute('aria-checked') !== null")
    await browser.press(" ")
    assert await browser.evaluate("document.activeElement.getAttribute('aria-checked')") == "true"
    await browser.press("Enter")
    await browser.until("document.querySelector('#connect-node-reading .reading')")
    shown = "[...document.querySelectorAll('#connect-tree .value')].map((cell) => cell.textContent).join()"
    before_long = await browser.evaluate(shown)
    await browser.until(f"{shown} !== {json.dumps(before_long)}")
    await press_until(browser, "Tab", "document.activeElement.id === 'connect-add'")
    await browser.press("Enter")
    await browser.until(DRAFTED)
    await press_until(browser, "Tab", "document.activeElement.id === 'changes-discard'")
    await browser.press("Enter")
    await browser.until("document.querySelector('#changes-draft').hidden")
    assert "No change waits" in await browser.text("#changes-none")
    await at_peace(browser, hall.base)


async def test_a_device_on_a_serial_port_can_be_added(browser: Browser, hall: Hall) -> None:
    await browser.open(f"{hall.base}#/connect", DESKTOP, LOCALES["en"], "light")
    await browser.until("!document.querySelector('#connect-steps').hidden")
    await browser.click("[name=protocol][value=serial]")
    await browser.fill("[name=serial]", "/dev/serial/by-id/usb-x")
    await browser.choose("[name=baud]", "19200")
    await browser.choose("[name=frame]", "8O1")
    await browser.choose("#connect-device [name=profile]", "eastron-sdm630")
    await browser.fill("#connect-device [name=id]", "on-the-line")
    await browser.click("#connect-add")
    await browser.until(DRAFTED)
    text = await browser.text("#view-changes")
    assert "Links: 1 added" in text
    assert "+ added on-the-line" in text


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_a_modbus_device_register_by_register(browser: Browser, hall: Hall, language: str) -> None:
    device = f"meter-{language}"
    await browser.open(f"{hall.base}#/connect", DESKTOP, LOCALES[language], "dark" if language == "zh" else "light")
    await browser.until("!document.querySelector('#connect-steps').hidden")
    await browser.click("[name=protocol][value=tcp]")
    await browser.click("#connect-register button")
    assert await browser.evaluate("document.activeElement.name") == "host"
    await browser.fill("[name=host]", HOST)
    await browser.fill("[name=port]", str(hall.machines.port("meter-01")))
    await browser.choose("#connect-register [name=table]", "input")
    assert set(
        await browser.evaluate(
            "[...document.querySelectorAll('#connect-register [name=type] option')].map(o => o.value)"
        )
    ) == set(get_args(ModbusType))
    for needing, field in (("uint8", "byte"), ("datetime", "layout"), ("bytes", "length"), ("uint32", "")):
        await browser.choose("#connect-register [name=type]", needing)
        shown = "[...document.querySelectorAll('#connect-register [data-need]')].filter(l => !l.hidden).map(l => l.dataset.need).join()"
        assert await browser.evaluate(shown) == field
    await browser.fill("#connect-register [name=address]", "0x0000")
    await browser.press("Enter")
    await browser.until("document.querySelector('#connect-register-reading .reading')")
    label = {"zh": "采用 float32，ABCD", "en": "Take float32, ABCD"}[language]
    await browser.click(f"[aria-label='{label}']")
    await browser.until(
        "document.querySelector('#connect-register [name=type]').value === 'float32' && document.querySelector('.reading dd:nth-of-type(2)')?.textContent === 'float32'"
    )
    volts = float(await browser.evaluate("parseFloat(document.querySelector('.reading > .value').textContent)"))
    assert 180 < volts < 280
    assert await browser.evaluate("document.querySelectorAll('.reading dd.code')[1].textContent.length") > 10
    await browser.fill("#connect-keep [name=name]", "Voltage L1")
    await browser.press("Enter")
    await browser.until("document.querySelector('#connect-keep-error').textContent")
    await browser.fill("#connect-keep [name=name]", "voltage/l1")
    await browser.fill("#connect-keep [name=unit]", "V")
    await browser.press("Enter")
    await browser.until("document.querySelectorAll('#connect-kept tbody tr').length === 1")
    await accessible(browser, "registers")
    await shot(browser, f"setup-{language}-registers")
    await browser.fill("#connect-device [name=id]", device)
    await browser.click("#connect-add")
    await applied(browser)
    await browser.click("nav a[href='#/values']")
    await browser.fill("#values-filters input", f"{device}/voltage/l1")
    await browser.until("document.querySelector('#values-rows .row')?.dataset.quality === 'good'")
    assert (await browser.text("#values-rows .value")).endswith(" V")
    await browser.click("#values-rows .do button")
    await browser.until("document.querySelector('dialog .reading')")
    await accessible(browser, "test-read")
    await shot(browser, f"setup-{language}-test-read")
    await browser.press("Escape")
    await browser.until("!document.querySelector('dialog')")
    await browser.click("nav a[href='#/devices']")
    await browser.click(f"[data-troubles={device}]")
    await browser.until("document.querySelector('.troubles li')")
    assert await browser.text(".troubles li") == {"zh": "无。", "en": "None."}[language]
    await accessible(browser, "troubles")
    await browser.click(f"[data-troubles={device}]")
    await browser.until("!document.querySelector('.troubles')")
    await browser.click(f"[data-remove={device}]")
    await browser.until(DRAFTED)
    assert {"zh": f"移除设备 {device}", "en": f"The device {device} is removed"}[language] == await browser.text(
        "#changes-title"
    )
    await applied(browser)
    await browser.click("nav a[href='#/devices']")
    await browser.until(f"document.querySelector('li[data-device={device}]')?.dataset.state !== 'connected'")
    await at_peace(browser, hall.base)


WRONG = (
    "device id,protocol,host,port,unit id,signal,table,address (from 0),data type\n"
    "press-9,modbus,127.0.0.1,{port},1,oil/temperature,input,0,float32\n"
    "press-9,,,,,Oil Pressure,input,seventy,float32\n"
)


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_a_point_table_with_mistakes_then_sound_then_back(
    browser: Browser, hall: Hall, tmp_path: Path, language: str
) -> None:
    await browser.open(f"{hall.base}#/tables", PHONE, LOCALES[language], "dark" if language == "en" else "light")
    await browser.until("!document.querySelector('#tables-steps').hidden")
    name, content = await browser.download("[data-get=template][data-form=xlsx]")
    assert name.endswith(".xlsx")
    assert content.startswith(b"PK")
    _, present = await browser.download("[data-get=table][data-form=csv-gbk]")
    assert "meter-01" in present.decode("gb18030")
    text = WRONG.format(port=hall.machines.port("meter-01"))
    file = tmp_path / "points.csv"
    file.write_text(text, encoding="utf-8")
    await browser.upload("#tables-file", file)
    await browser.until("document.querySelectorAll('#tables-error .cells tbody tr').length === 2")
    cells = await browser.text("#tables-error .cells")
    assert "F3" in cells
    assert "H3" in cells
    assert "seventy" in cells
    await accessible(browser, "mistakes in a table")
    await shot(browser, f"setup-{language}-table")
    sound = text.replace("Oil Pressure", "oil/pressure").replace("seventy", "6")
    await drop(browser, sound)
    await browser.until(DRAFTED)
    assert "press-9" in await browser.text("#changes-difference")
    await browser.evaluate("void location.reload()")
    await browser.until(f"document.readyState === 'complete' && {DRAFTED}")
    number = await applied(browser)
    await browser.until(f"document.querySelector('#changes-history tr[data-number=\"{number}\"] .badge')")
    await browser.click(f"#changes-history tr[data-number='{number - 1}'] button")
    await browser.until(DRAFTED)
    assert "press-9" in await browser.text("#changes-difference .diff")
    await accessible(browser, "rollback")
    await applied(browser)
    await at_peace(browser, hall.base, 422)


async def test_a_change_by_somebody_else_is_told_with_ways_on(browser: Browser, hall: Hall) -> None:
    await browser.open(f"{hall.base}#/devices")
    await browser.click("[data-remove=meter-01]")
    await browser.until(DRAFTED)
    before = hall.gateway.config.read_text(encoding="utf-8")
    hall.gateway.config.write_text(before + "# a remark of somebody else\n", encoding="utf-8")
    await browser.click("#changes-apply")
    await browser.click("dialog .primary")
    await browser.until("!document.querySelector('#changes-remake').hidden")
    assert "Somebody else" in await browser.text("#changes-error")
    assert await browser.evaluate("document.querySelector('#changes-apply').hidden")
    await accessible(browser, "conflict")
    await browser.click("#changes-remake")
    await browser.until(DRAFTED)
    yaml = str(await browser.evaluate("JSON.parse(sessionStorage.getItem('guantong-draft')).body.yaml"))
    assert "a remark of somebody else" in yaml
    hall.gateway.config.write_text(before, encoding="utf-8")
    await browser.evaluate("void location.reload()")
    await browser.until("document.readyState === 'complete' && !document.querySelector('#changes-again').hidden")
    await browser.click("#changes-again")
    await browser.until(DRAFTED)
    await browser.click("nav a[href='#/devices']")
    await browser.click("[data-remove=meter-01]")
    await browser.until("document.querySelector('dialog')")
    assert "A change waits" in await browser.text("dialog")
    await browser.press("Escape")
    await browser.until("!document.querySelector('dialog')")
    await browser.click("nav a[href='#/changes']")
    await browser.click("#changes-discard")
    await browser.until("document.querySelector('#changes-draft').hidden")
    await at_peace(browser, hall.base, 412)


async def test_mistakes_of_the_configuration_have_line_and_path(browser: Browser, hall: Hall) -> None:
    await browser.open(f"{hall.base}#/changes")
    broken = hall.gateway.config.read_text(encoding="utf-8").replace("adapter: modbus", "adapter: modbos")
    draft: dict[str, Any] = {"kind": "table", "name": "x", "body": {"yaml": broken}, "etag": "*", "notices": []}
    await browser.evaluate(f"void sessionStorage.setItem('guantong-draft', JSON.stringify({draft}))")
    await browser.evaluate("void location.reload()")
    await browser.until("document.querySelector('#changes-error .cells tbody tr')")
    told = await browser.text("#changes-error .cells")
    assert "line " in told
    assert "adapter" in told
    await browser.click("#changes-discard")


async def test_without_the_role_the_views_say_which_and_how(browser: Browser, hall: Hall) -> None:
    viewer, engineer = KeyFile(hall.gateway.data).add("screen"), KeyFile(hall.gateway.data).add("anna", "engineer")
    try:
        await browser.open(hall.base)
        await browser.until("!document.querySelector('#key-form').hidden")
        await browser.fill("#key", viewer)
        await browser.press("Enter")
        await browser.until("document.querySelector('#devices-list [data-remove]')")
        for view in ("connect", "tables"):
            await browser.click(f"nav a[href='#/{view}']")
            await browser.until(f"document.querySelector('#{view}-denied .failure')")
            assert "--role engineer" in await browser.text(f"#{view}-denied")
            await accessible(browser, view)
        await browser.click("#tables-denied button")
        await browser.fill("#key", engineer)
        await browser.press("Enter")
        await browser.until("!document.querySelector('#tables-steps').hidden")
        await at_peace(browser, hall.base, 401, 403)
    finally:
        for key in ("screen", "anna"):
            KeyFile(hall.gateway.data).revoke(key)


async def test_new_views_keep_nobody_out(browser: Browser, hall: Hall) -> None:
    for size, colour in itertools.product([PHONE, DESKTOP], ["light", "dark"]):
        await browser.open(f"{hall.base}#/connect", size, "zh-CN", colour)
        await offered(browser, hall)
        await browser.click("#connect-tree [aria-expanded=false] .twist")
        await browser.until("document.querySelector('#connect-tree [aria-level=\"2\"]')")
        await accessible(browser, f"connect {size} {colour}")
        await shot(browser, f"setup-{size[0]}-{colour}-connect")
        await browser.click("nav a[href='#/tables']")
        await browser.until("!document.querySelector('#tables-steps').hidden")
        await accessible(browser, f"tables {size} {colour}")
        await shot(browser, f"setup-{size[0]}-{colour}-tables")
        await browser.click("nav a[href='#/changes']")
        await browser.until("document.querySelector('#changes-history .badge')")
        await accessible(browser, f"changes {size} {colour}")
        await shot(browser, f"setup-{size[0]}-{colour}-changes")
        await at_peace(browser, hall.base)
