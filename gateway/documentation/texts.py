"""The texts around the pages, in English and Chinese."""

from __future__ import annotations

from typing import Final

from gateway.api.language import Words

TEXTS: Final[dict[str, Words]] = {
    "brand": Words("Guantong 贯通", "贯通 Guantong"),
    "title": Words("Documentation", "文档"),
    "skip": Words("To the content", "跳到正文"),
    "contents": Words("All pages", "全部页面"),
    "on_this_page": Words("On this page", "本页内容"),
    "language": Words("Language", "语言"),
    "page": Words("Workshop", "车间数据"),
    "api": Words("API documentation", "接口文档"),
    "openapi": Words("OpenAPI document", "OpenAPI 文件"),
    "in_english": Words("in English", "英文"),
    "only_english": Words("This page exists in English only.", "本页暂无中文版，以下为英文内容。"),
    "about": Words(
        "Documentation of version {version}, as it was installed. It needs no network.",
        "版本 {version} 的文档，随软件安装，不需要网络。",
    ),
}
