"""Log lines: one per event, its values as fields."""

import io
import json
import logging

from connect_kv.serving.logs import JsonFormatter, TextFormatter


def lines(formatter: logging.Formatter) -> str:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    logger = logging.getLogger("connect_kv.tests.logs")
    logger.propagate = False
    logger.handlers[:] = [handler]
    logger.setLevel("INFO")
    logger.info("became leader", extra={"term": 3, "address": "a b"})
    return out.getvalue()


def test_text_has_one_line_with_fields() -> None:
    (line,) = lines(TextFormatter("n1")).splitlines()
    assert line.endswith('INFO n1 became leader term=3 address="a b"')


def test_json_has_one_object_per_line() -> None:
    line = json.loads(lines(JsonFormatter("n1")))
    assert (line["message"], line["term"], line["node"], line["level"]) == ("became leader", 3, "n1", "info")
