"""`guantong doctor`: is this box fit to be a gateway? Clock, disk, network, ports, rights, devices, versions, memory."""

from __future__ import annotations

import dataclasses

import typer

from gateway.cli._output import say, show
from gateway.cli.app import ConfigOption, JsonOption, app


@app.command(
    epilog="Examples: guantong doctor    guantong doctor --config workshop.yaml --json    (exit code 1: something fails)"
)
def doctor(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Look at clock, disk, network, ports, permissions and reachable devices; say what is wrong and how to mend it."""
    from gateway.config.load import load_config
    from gateway.diagnosis.doctor import examine
    from gateway.diagnosis.findings import Finding, exit_code
    from schemas.documents import DocumentError

    loaded, findings = None, []
    try:
        loaded = load_config(config)
    except DocumentError as error:
        fix = ("guantong check 会逐条说明。", "guantong check explains each.")
        findings = [Finding("configuration", "fail", p.text("zh"), p.text("en"), *fix) for p in error.problems]
    findings += examine(loaded)
    if json:
        show([dataclasses.asdict(finding) for finding in findings], {}, as_json=True)
    else:
        rows = [
            {"check": f.check, "state": f.state, "detail": say(f.zh, f.en), "fix": say(f.fix_zh, f.fix_en)}
            for f in findings
        ]
        headings = {
            "check": say("项目", "what"),
            "state": say("状态", "state"),
            "detail": say("说明", "detail"),
            "fix": say("处理", "fix"),
        }
        show(rows, headings, as_json=False)
    raise typer.Exit(exit_code(findings))
