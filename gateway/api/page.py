"""The page at `/`: where everything is, in Chinese and English, without a script or anything from elsewhere."""

from __future__ import annotations

from functools import cache
from html import escape

from gateway import __version__

_LINKS = (
    ("docs", "接口文档（可在线试用）", "API documentation, to try out"),
    ("openapi.json", "OpenAPI 3.1 描述文件", "OpenAPI 3.1 document"),
    ("api/v1/devices", "设备及其状态", "Devices and their state"),
    ("api/v1/latest", "所有信号的最新值", "Latest value of every signal"),
    ("api/v1/signals", "信号清单", "Signals"),
    ("api/v1/assets?view=tree", "资产树", "Assets as a tree"),
    ("api/v1/events", "事件与报警", "Events and alarms"),
    ("api/v1/gaps", "数据缺口", "Gaps in the data"),
    ("api/v1/stream", "实时数据流（SSE）", "Live stream (server-sent events)"),
    ("health", "运行状况", "Health"),
    ("metrics", "Prometheus 指标", "Prometheus metrics"),
)

_PAGE = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>贯通 Guantong</title>
<style>
body {{ font: 16px/1.6 system-ui, "Noto Sans SC", "Microsoft YaHei", sans-serif; margin: 3rem auto; max-width: 46rem; padding: 0 1rem;
  color: #1b1f24; background: #fff; }}
h1 {{ font-weight: 600; margin-bottom: 0; }}
p.version {{ margin-top: 0; color: #57606a; }}
table {{ border-collapse: collapse; width: 100%; }}
td {{ padding: .45rem .6rem; border-top: 1px solid #d0d7de; vertical-align: top; }}
a {{ color: #0b57a4; }}
code {{ background: #f3f4f6; padding: .1rem .3rem; border-radius: 3px; }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #e6e8ea; background: #16181b; }} td {{ border-color: #33383e; }} a {{ color: #7ab7f5; }}
  code {{ background: #26292e; }} p.version {{ color: #9aa3ab; }}
}}
</style>
</head>
<body>
<h1>贯通 Guantong</h1>
<p class="version">{version}</p>
<p>工业数据集成网关：统一模型、统一总线、统一存储、统一接口。<br>
<span lang="en">Industrial data-integration gateway: one schema, one bus, one store, one API.</span></p>
<table>
{rows}
</table>
<p>命令行示例 <span lang="en">(on the command line)</span>:
<code>curl 'http://127.0.0.1:8000/api/v1/latest?match=*'</code></p>
</body>
</html>
"""


@cache
def render() -> str:
    """The page."""
    rows = "\n".join(
        f'<tr><td><a href="{escape(link)}"><code>/{escape(link)}</code></a></td><td>{zh}<br><span lang="en">{en}</span></td></tr>'
        for link, zh, en in _LINKS
    )
    return _PAGE.format(version=escape(__version__), rows=rows)
