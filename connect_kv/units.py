"""Durations and sizes as people write them: ``3s``, ``500ms``, ``1h30m``, ``2GiB``."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1, "b": 1,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?")
_DURATION = re.compile(rf"(?:{_NUMBER.pattern}\s*(?:ms|s|m|h|d)\s*)+")
_PART = re.compile(rf"({_NUMBER.pattern})\s*(ms|s|m|h|d)")
_SIZE = re.compile(rf"({_NUMBER.pattern})\s*([a-z]*)", re.I)


def seconds(text: str, unit: str = "s") -> float:
    """Seconds of a duration; a bare number counts in `unit`. Raises ValueError: what was expected."""
    given = text.strip()
    if _NUMBER.fullmatch(given):
        return float(given) * _SECONDS[unit]
    if not _DURATION.fullmatch(given):
        raise ValueError(f"{text!r}: expected a duration such as 3s, 500ms or 1h30m")
    return sum(float(number) * _SECONDS[name] for number, name in _PART.findall(given))


def whole(text: str, unit: str) -> int:
    """A duration as a whole number of `unit`. Raises ValueError."""
    exact = seconds(text, unit) / _SECONDS[unit]
    if abs(exact - round(exact)) > 1e-6:
        raise ValueError(f"{text!r}: expected a whole number of {unit}")
    return round(exact)


def size(text: str) -> int:
    """Bytes: ``512``, ``64KiB``, ``1.5GiB``, or in thousands ``2GB``. Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or found[2].lower() not in _BYTES:
        raise ValueError(f"{text!r}: expected a size such as 64KiB, 512MiB or 2GiB")
    unit = _BYTES[found[2].lower()]
    exact = float(found[1]) * unit if "." in found[1] else int(found[1]) * unit
    if exact != int(exact):
        raise ValueError(f"{text!r}: expected a whole number of bytes")
    return int(exact)
