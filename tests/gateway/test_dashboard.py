"""The dashboard as HTTP sees it: its files, who may call what through it, and its sessions."""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from connect_kv.frontend.http.files import files
from connect_kv.server.composition import KvServer
from tests.gateway import http2
from tests.gateway.conftest import member
from tests.gateway.raw import Answer, connected, request

MARK = "X-Connect-KV-Dashboard"
OWN = "/connect_kv/v1/dashboard/"
SAME = {"Sec-Fetch-Site": "same-origin"}
RANGE, TXN = "/v3/kv/range", "/v3/kv/txn"
ASKED = {RANGE: '{"key":"Zm9v"}', TXN: '{"success":[{"requestPut":{"key":"Zm9v","value":"YmFy"}}]}'}
FOREIGN, OLD = "did not come from the dashboard's own page", "out of date"
ROOT = Path(__file__).parents[2]


async def ask(
    port: int, method: str, path: str, body: str = "", headers: Mapping[str, str] | None = None
) -> Answer:
    async with connected(port) as socket:
        socket.send(request(method, path, body.encode() if method == "POST" else None, headers, port))
        return await socket.answer(method)


class Browser:
    """What a browser does: keeps the cookie, says where a request comes from."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookie = ""
        self.about: dict[str, Any] = {}

    async def post(self, path: str, body: str = "{}", **headers: str) -> Answer:
        sent = {**SAME, MARK: self.about.get("mark", "session"), **headers}
        if self.cookie:
            sent["Cookie"] = f"theme=dark; {self.cookie}"
        found = await ask(self.port, "POST", path, body, sent)
        if "set-cookie" in found.headers:
            self.cookie = found.headers["set-cookie"].partition(";")[0]
        if path.startswith(OWN) and path.rpartition("/")[2] in ("session", "login", "logout"):
            self.about = json.loads(found.text)
        return found

    async def login(self, name: str, password: str) -> Answer:
        return await self.post(f"{OWN}login", json.dumps({"name": name, "password": password}))


@asynccontextmanager
async def browsing(directory: Path, **options: object) -> AsyncIterator[tuple[KvServer, Browser]]:
    async with member(directory, **options) as server:
        browser = Browser(server.services.client_port)
        await browser.post(f"{OWN}session")
        yield server, browser


async def with_users(port: int) -> None:
    """root, and al who may read below ``a``."""
    for path, body in (
        ("user/add", {"name": "root", "password": "pw"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("user/add", {"name": "al", "password": "secret"}),
        ("role/add", {"name": "r"}),
        ("role/grant", {"name": "r", "perm": {"permType": "READ", "key": "YQ==", "range_end": "Yg=="}}),
        ("user/grant", {"user": "al", "role": "r"}),
        ("enable", {}),
    ):
        assert (await ask(port, "POST", f"/v3/auth/{path}", json.dumps(body))).status == 200, path


def refused(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.text)["message"]


async def test_a_browser_gets_the_page_and_all_else_what_etcd_answers(port: int) -> None:
    page = await ask(port, "GET", "/", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.status == 200
    assert "<!doctype html>" in page.text
    for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        other = await ask(port, "GET", "/", headers=accept)
        assert (other.status, other.text) == (404, "404 page not found\n")
    assert (await ask(port, "POST", "/", "{}", {"Accept": "text/html"})).status == 404
    assert (await ask(port, "GET", "/dashboard/")).text == page.text
    assert (await ask(port, "HEAD", "/dashboard/")).headers["content-length"] == str(len(page.body))
    assert (await ask(port, "GET", "/dashboard/../dashboard/nothing.js")).status == 301
    assert (await ask(port, "GET", "/dashboard/nothing.js")).status == 404


async def test_every_file_is_served_with_its_type_and_nothing_from_elsewhere_is_let_in(
    server: KvServer, port: int
) -> None:
    for name, (kind, body) in files().items():
        path = "/dashboard/" + ("" if name == "index.html" else name)
        for at in (port, server.services.http_port):
            found = await ask(at, "GET", path)
            assert (found.status, found.body, found.headers["content-type"]) == (200, body, kind), path
            policy = found.headers["content-security-policy"].split("; ")
            assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
            assert not any("unsafe" in rule or "*" in rule for rule in policy)
            assert found.headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in found.headers
        same = {"If-None-Match": found.headers["etag"]}
        async with connected(port) as socket:
            socket.send(request("GET", path, headers=same, port=port) + request("GET", path, port=port))
            again = await socket.head()
            assert (await socket.answer()).body == body, "what follows begins where the head ends"
        assert again.status == 304
        assert "content-length" not in again.headers
        assert (await ask(port, "POST", path, "{}")).status == 405


def test_the_files_are_few_enough_and_use_nothing_that_the_policy_forbids() -> None:
    found = files()
    assert sum(len(body) for _, body in found.values()) < 150_000
    for name, (_, body) in found.items():
        text = body.decode()
        assert "http://" not in text.replace("http://www.w3.org/", ""), name
        assert "https://" not in text, name
        for markup in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", " style="):
            assert markup not in text, (name, markup)


def test_all_files_are_part_of_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["connect_kv"]
    for name in files():
        assert any(fnmatch(f"frontend/http/web/{name}", pattern) for pattern in patterns), name
    assert {one.name for one in (ROOT / "connect_kv/frontend/http/web").iterdir()} == set(files())


async def test_off_there_is_no_page_and_a_cookie_counts_for_nothing(tmp_path: Path) -> None:
    async with member(tmp_path, dashboard="off") as server:
        port = server.services.client_port
        assert (await ask(port, "GET", "/", headers={"Accept": "text/html"})).status == 404
        assert (await ask(port, "GET", "/dashboard/")).status == 404
        assert (await ask(port, "POST", f"{OWN}session", "{}", {**SAME, MARK: "session"})).status == 404


async def test_without_the_gateway_there_is_no_dashboard(tmp_path: Path) -> None:
    async with member(tmp_path, enable_grpc_gateway=False, dashboard="write") as server:
        port = server.services.client_port
        assert (await ask(port, "GET", "/", headers={"Accept": "text/html"})).status == 404


async def test_the_names_of_hosts_count_for_the_page_too(tmp_path: Path) -> None:
    async with member(tmp_path, host_whitelist="a.example") as server:
        port = server.services.client_port
        assert (await ask(port, "GET", "/dashboard/")).status == 421
        assert (await ask(port, "GET", "/dashboard/", headers={"Host": "a.example"})).status in (200, 400)


async def test_read_only_is_the_members_word_not_the_pages(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (_, browser):
        assert browser.about["writes"] is False
        assert (await browser.post(RANGE, ASKED[RANGE])).status == 200
        for path, body in (
            (TXN, ASKED[TXN]),
            ("/v3/lease/revoke", '{"ID":"1"}'),
            ("/connect_kv/v1/machine/call", '{"machine":"m","method":"m"}'),
        ):
            status, text = refused(await browser.post(path, body))
            assert (status, "read" in text) == (403, True), path
        for path in (
            "/v3/kv/put",
            "/v3beta/kv/txn",
            "//v3/kv/txn",
            "/v3/kv/%74xn",
            "/v3/kv/txn?a",
            "/v3/auth/enable",
        ):
            assert (await browser.post(path, ASKED[TXN])).status == 403, path
        found = await browser.post(RANGE, ASKED[RANGE])
        assert "kvs" not in json.loads(found.text), "something was written"


async def test_where_it_may_write_it_may_do_what_the_page_offers_and_no_more(tmp_path: Path) -> None:
    async with browsing(tmp_path, dashboard="write") as (_, browser):
        assert browser.about["writes"] is True
        assert (await browser.post(TXN, ASKED[TXN])).status == 200
        assert json.loads((await browser.post(RANGE, ASKED[RANGE])).text)["count"] == "1"
        for path in ("/v3/kv/put", "/v3/auth/enable", "/v3/cluster/member/remove", "/metrics"):
            assert (await browser.post(path, "{}")).status == 403, path


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, FOREIGN),
        ({"Sec-Fetch-Site": "same-site"}, FOREIGN),
        ({"Sec-Fetch-Site": "none"}, FOREIGN),
        ({MARK: "guessed"}, OLD),
        ({MARK: ""}, OLD),
        ({MARK: "\xe9"}, OLD),
    ],
)
async def test_a_page_of_somebody_else_can_call_nothing(
    headers: dict[str, str], why: str, tmp_path: Path
) -> None:
    async with browsing(tmp_path, dashboard="write") as (_, browser):
        status, text = refused(await browser.post(TXN, ASKED[TXN], **headers))
        assert (status, why in text) == (403, True)


async def test_browsers_that_only_say_their_origin_are_believed_where_it_is_ours(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (server, browser):
        port = server.services.client_port
        mark = browser.about["mark"]
        for origin, status in (
            (f"http://127.0.0.1:{port}", 200),
            (f"http://127.0.0.1:{port + 1}", 403),
            ("http://evil.example", 403),
            ("null", 403),
            ("http://[", 403),
        ):
            found = await ask(port, "POST", RANGE, ASKED[RANGE], {MARK: mark, "Origin": origin})
            assert found.status == status, origin
            assert "access-control-allow-origin" not in found.headers
        assert (await ask(port, "POST", RANGE, ASKED[RANGE], {MARK: mark})).status == 403


async def test_a_login_gives_a_cookie_that_no_script_can_read_and_that_counts_for_the_page_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with browsing(tmp_path) as (server, browser):
        port = server.services.client_port
        await with_users(port)
        await browser.post(f"{OWN}session")
        assert browser.about["authentication"]
        assert not browser.about["user"]
        assert "user name is empty" in refused(await browser.post(RANGE, ASKED[RANGE]))[1]
        assert "user name is empty" in refused(await browser.post(f"{OWN}overview"))[1]
        wrong = await browser.login("al", "guess")
        assert (wrong.status, "set-cookie" in wrong.headers) == (400, False)
        before = browser.about.get("mark")

        found = await browser.login("al", "secret")
        assert found.status == 200
        attributes = found.headers["set-cookie"].split("; ")[1:]
        assert attributes == ["Path=/", "HttpOnly", "SameSite=Strict"]
        token = browser.cookie.partition("=")[2]
        assert token not in found.text
        assert browser.about["user"] == "al"
        assert browser.about["mark"] != before
        assert (await browser.post(RANGE, '{"key":"YQ=="}')).status == 200
        assert (await browser.post(f"{OWN}overview")).status == 200
        assert "permission denied" in refused(await browser.post(RANGE, '{"key":"eA=="}'))[1]
        # What else came with the call does not speak for another user.
        mixed = await browser.post(RANGE, '{"key":"YQ=="}', Authorization="made up")
        assert mixed.status == 200

        cookie = {"Cookie": browser.cookie}
        assert "user name is empty" in refused(await ask(port, "POST", RANGE, ASKED[RANGE], cookie))[1]
        stale = await ask(port, "POST", RANGE, ASKED[RANGE], {**SAME, **cookie, MARK: str(before)})
        assert OLD in refused(stale)[1]

        gone = await browser.post(f"{OWN}logout")
        assert "Max-Age=0" in gone.headers["set-cookie"]
        assert not browser.about["user"]
        assert "secret" not in caplog.text
        assert token not in caplog.text


async def test_a_login_from_elsewhere_is_refused_unread(port: int) -> None:
    body = '{"name":"al","password":"secret"}'
    for name in ("login", "logout", "session"):
        for headers in ({}, {MARK: "x"}, SAME, {MARK: "x", "Sec-Fetch-Site": "cross-site"}):
            found = await ask(port, "POST", f"{OWN}{name}", body, headers)
            assert (found.status, "set-cookie" in found.headers) == (403, False)
        assert (await ask(port, "GET", f"{OWN}{name}", headers={**SAME, MARK: "x"})).status == 403
    for bad in ("[", "[]", '{"name":5}', '{"name":"' + "a" * 70_000 + '"}'):
        found = await ask(port, "POST", f"{OWN}login", bad, {**SAME, MARK: "x"})
        assert 400 <= found.status < 500, bad[:20]


async def test_over_http2_it_is_the_same(tmp_path: Path) -> None:
    async with member(tmp_path) as server:
        port = server.services.client_port
        await with_users(port)
        async with http2.connected(port) as connection:

            async def over(method: str, path: str, body: str | None, **headers: str) -> Answer:
                sent = {name.replace("_", "-"): value for name, value in headers.items()}
                asked = await connection.ask(
                    method, path, None if body is None else body.encode(), sent, port
                )
                return await asked.answer(method)

            page = await over("GET", "/", None, accept="text/html")
            assert (page.status, b"<!doctype html>" in page.body) == (200, True)
            assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
            assert (await over("GET", "/", None)).status == 404
            again = await over("GET", "/dashboard/", None, if_none_match=page.headers["etag"])
            assert (again.status, again.body) == (304, b"")
            assert "content-length" not in again.headers

            ours = {"sec_fetch_site": "same-origin", MARK: "session"}
            body = '{"name":"al","password":"secret"}'
            login = await over("POST", f"{OWN}login", body, **ours)
            mark = json.loads(login.text)["mark"]
            cookie = login.headers["set-cookie"].partition(";")[0]
            known = {**ours, MARK: mark, "cookie": cookie}
            assert (await over("POST", RANGE, '{"key":"YQ=="}', **known)).status == 200
            assert refused(await over("POST", TXN, ASKED[TXN], **known))[0] == 403
            assert refused(await over("POST", RANGE, ASKED[RANGE], **{**known, MARK: "guessed"}))[0] == 403
