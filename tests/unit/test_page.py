"""The page's files: what is served and under which headers, what it weighs, and that nothing foreign is in it."""

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ratchet.contracts.search import (
    Budget,
    SearchRequest,
    StrategyName,
    StrategyParameters,
    VerificationLevel,
)
from ratchet.states import SearchState
from ratchet.web.app import ProblemError
from ratchet.web.problems import problem_response
from services.search import page_routes
from services.search.page_routes import PAGE, POLICY, TYPES

MOST_BYTES = 300 * 1024
MOST_LINES = 450
VENDORED = {
    # d3-hierarchy 3.1.3, dist/d3-hierarchy.min.mjs. ISC.
    "d3-hierarchy.js": "400b7b1e7077b4905f680093785eca591f799f03c735fcd3290dd55611e8410e",
    # htm 3.1.1, preact/standalone.module.js: htm (Apache-2.0) with Preact (MIT).
    "preact-htm.js": "72284e8e9079c87817145df1110f74e8a2aa040b2fc384922e18dfcb46fc1fd7",
}
SERVED = sorted(file for file in PAGE.rglob("*") if file.suffix in TYPES)
OURS = [file for file in SERVED if file.parent.name != "vendor"]
SCRIPTS = [file for file in OURS if file.suffix == ".js"]


def name(file: Path) -> str:
    return str(file.relative_to(PAGE))


@pytest.fixture(scope="module")
def browser() -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(page_routes.router)
    app.add_exception_handler(
        ProblemError, lambda request, error: problem_response(404, str(error), request.url.path)
    )
    with TestClient(app) as client:
        yield client


def test_the_page_is_served_with_its_type_and_a_strict_policy(browser: TestClient) -> None:
    assert browser.get("/").content == (PAGE / "index.html").read_bytes()
    for file in SERVED:
        answer = browser.get(f"/page/{name(file)}")
        assert answer.status_code == 200, file
        assert answer.content == file.read_bytes()
        assert answer.headers["content-type"] == TYPES[file.suffix]
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-cache"
    allowed = dict(each.split(" ", 1) for each in POLICY.split("; "))
    assert allowed["default-src"] == "'none'"
    assert not re.search(r"unsafe|https?:|\*", POLICY)


def test_who_does_not_read_gzip_gets_the_file_as_it_is(browser: TestClient) -> None:
    for accepted in ("identity", "", "gzip;q=0", "br, gzip; q=0.0"):
        answer = browser.get("/page/app.js", headers={"accept-encoding": accepted})
        assert "content-encoding" not in answer.headers, accepted
        assert answer.content == (PAGE / "app.js").read_bytes()
    assert "content-encoding" in browser.get("/page/app.js", headers={"accept-encoding": "br, gzip"}).headers


def test_what_the_browser_has_is_not_sent_again(browser: TestClient) -> None:
    tag = browser.get("/page/app.js").headers["etag"]
    for known in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        again = browser.get("/page/app.js", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b""), known
        assert again.headers["etag"] == tag
    assert browser.get("/page/app.js", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "", "../app.py", "..%2fapp.py", "%2e%2e/app.py", "lib/..%2f..%2fapp.py", "/etc/passwd", "lib/",
        "lib", "app.js/", "app.js%00", "APP.JS", ".hidden.js", "vendor/preact-htm.d.ts", "vendor/NOTICE",
        "lib//ui.js", "lib/ui.js/x.js", "nothing.js", "lib\\ui.js",
    ],
)  # fmt: skip
def test_no_other_path_leads_to_a_file(browser: TestClient, path: str) -> None:
    assert browser.get(f"/page/{path}").status_code == 404


def test_all_that_a_browser_can_load_is_light() -> None:
    sent = sum(len(gzip.compress(file.read_bytes(), mtime=0)) for file in SERVED)
    assert sent <= MOST_BYTES, f"{sent} bytes"
    too_long = [name(f) for f in OURS if len(f.read_text().splitlines()) > MOST_LINES]
    assert not too_long


def test_vendored_libraries_are_the_published_ones() -> None:
    vendor = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (PAGE / "vendor").glob("*.js")
    }
    assert vendor == VENDORED
    notice = (PAGE / "vendor" / "NOTICE").read_text()
    assert all(file in notice for file in VENDORED)


def test_html_has_no_script_and_no_style_of_its_own() -> None:
    for file in (file for file in OURS if file.suffix in (".html", ".svg")):
        text = file.read_text()
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), file
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text), file


def test_text_never_becomes_markup_or_code() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|createContextualFragment"
    )
    for file in SCRIPTS:
        text = file.read_text()
        assert not forbidden.search(text), file
        assert "dangerouslySetInnerHTML" not in text, file
        # As a string the attribute would be refused by the policy; as an object Preact sets properties.
        assert not re.search(r'\sstyle=["\']', text), file


def test_nothing_comes_from_another_site() -> None:
    # Names of XML, and an address that is none (RFC 2606).
    names = ("http://www.w3.org/", "https://offline.invalid/")
    for file in OURS:
        for address in re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"'`)]*", file.read_text()):
            assert address.startswith(names), (file, address)


def imports(file: Path) -> set[Path]:
    """The modules that a script imports, at its start or when they are asked for, and those that it names to be read."""
    found = re.findall(r"(?:from|import)\s*\(?\s*[\"'](\.[^\"']+)[\"']", file.read_text())
    workers = re.findall(r"new URL\(\s*[\"'](\.[^\"']+\.js)[\"']", file.read_text())
    read = re.findall(r"\"([a-z]+/[a-z-]+\.js)\"", file.read_text())
    return {(file.parent / each).resolve() for each in (*found, *workers)} | {PAGE / each for each in read}


def test_every_module_and_sheet_that_is_named_exists_and_every_file_is_named() -> None:
    page = (PAGE / "index.html").read_text()
    reached = {(PAGE.parent / each).resolve() for each in re.findall(r"(?:src|href)=\"(page/[^\"]+)\"", page)}
    waiting = [file for file in reached if file.suffix == ".js"]
    while waiting:
        file = waiting.pop()
        assert file.is_file(), f"{file} is imported, and does not exist"
        text = file.read_text()
        new = (imports(file) if file.parent.name != "vendor" else set()) - reached
        waiting.extend(new)
        sheets = {PAGE / "style" / f"{each}.css" for each in re.findall(r"useStyle\(\"([a-z-]+)\"\)", text)}
        assert all(sheet.is_file() for sheet in sheets), file
        reached |= new | sheets
    left = {name(file) for file in SERVED} - {name(file) for file in reached} - {"index.html"}
    assert not left, "nothing loads these"


def constant(script: str, named: str) -> str:
    """The text of an exported object literal."""
    found = re.search(
        rf"export const {named} = (\{{.*?^\}});$", (PAGE / script).read_text(), re.DOTALL | re.MULTILINE
    )
    assert found is not None, named
    return found[1]


def names_of(script: str, named: str) -> set[str]:
    return set(re.findall(r"^  (\w+):", constant(script, named), re.MULTILINE))


def test_what_the_page_knows_by_heart_is_what_the_api_says() -> None:
    request = SearchRequest(problem="p")
    assert json.loads(constant("lib/ask-form.js", "DEFAULTS")) == {
        "require": request.require,
        "priority": request.priority,
        "seed": request.seed,
        "budget": Budget().model_dump(mode="json"),
        "parameters": StrategyParameters().model_dump(mode="json"),
    }
    assert names_of("lib/format.js", "STRATEGIES") == set(StrategyName)
    assert names_of("lib/format.js", "LEVELS") == set(VerificationLevel)
    assert names_of("lib/format.js", "SEARCH_STATES") == set(SearchState)
