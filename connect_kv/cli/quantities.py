"""What commands take as words: durations and sizes."""

from __future__ import annotations

import click

from connect_kv import units


class Duration(click.ParamType[float]):
    """Seconds, written ``3s``, ``500ms`` or ``1h30m``; a bare number counts in `unit`."""

    name = "DURATION"

    def __init__(self, unit: str = "s", *, above: float | None = None) -> None:
        self._unit = unit
        self._above = above

    def convert(
        self, value: object, parameter: click.Parameter | None, context: click.Context | None
    ) -> float:
        """Raises a usage error that says what was expected."""
        if isinstance(value, float):
            return value
        try:
            found = units.seconds(str(value), self._unit)
        except ValueError as error:
            self.fail(str(error), parameter, context)
        if self._above is not None and found <= self._above:
            self.fail(f"{value!r}: expected more than {self._above:g}s", parameter, context)
        return found


class WholeSeconds(click.ParamType[int]):
    """A duration of a whole number of seconds, at least one: a time to live."""

    name = "DURATION"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """Raises a usage error that says what was expected."""
        try:
            found = units.whole(str(value), "s")
        except ValueError as error:
            self.fail(str(error), parameter, context)
        if found < 1:
            self.fail(f"{value!r}: expected at least 1s", parameter, context)
        return found


class Size(click.ParamType[int]):
    """Bytes, written ``512``, ``64KiB`` or ``2GiB``."""

    name = "SIZE"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """Raises a usage error that says what was expected."""
        try:
            return units.size(str(value))
        except ValueError as error:
            self.fail(str(error), parameter, context)
