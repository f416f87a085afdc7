"""What the codes of reasons and quantities say, in Chinese and English."""

from __future__ import annotations

from collections.abc import Iterable

_REASONS: dict[str, tuple[str, str]] = {
    "zero": ("一直为 0，可能未使用", "always 0, perhaps unused"),
    "absent": ("固定为“无数据”常用值", "rests at a word that often means no value"),
    "constant": ("数值不变", "does not change"),
    "few_digits": ("是位数很少的整齐数", "a round number with few digits"),
    "magnitude": ("数量级合理", "a plausible magnitude"),
    "smooth": ("变化平稳", "changes smoothly"),
    "moves": ("在变化", "changes"),
    "jumps": ("跳变", "jumps"),
    "state": ("只有少数几个取值", "takes a few values only"),
    "counter": ("只增不减，像计数器", "only rises, as a counter"),
    "carries": ("低字回绕时高字进位", "the upper word steps where the lower wraps"),
    "together": ("高低字同时变化", "both words step together"),
    "sign_extends": ("高字为符号扩展", "the upper word is only the sign"),
    "upper_zero": ("高字一直为 0", "the upper word is always 0"),
    "upper_rests": ("高字不变，低字变化", "the upper word rests while the lower moves"),
    "negative": ("出现负值", "goes below zero"),
    "nan": ("浮点 NaN，表示无数据", "a float NaN: no value"),
    "text": ("可打印的文字", "printable text"),
}
_QUANTITIES: dict[str, tuple[str, str]] = {
    "frequency": ("频率", "frequency"),
    "voltage": ("电压", "voltage"),
    "power_factor": ("功率因数", "power factor"),
    "temperature": ("温度", "temperature"),
}


def reasons(codes: Iterable[str], *, chinese: bool) -> str:
    """The reasons as one line."""
    return ("，" if chinese else ", ").join(_REASONS[code][0 if chinese else 1] for code in codes)


def quantity(code: str, *, chinese: bool) -> str:
    """The name of a quantity."""
    return _QUANTITIES[code][0 if chinese else 1]
