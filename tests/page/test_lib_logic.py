"""The pure modules of the page's lib/, run in Chromium as they are served: no stack, no build."""

import ast
import json
import shlex
from typing import Any

import pytest

from ratchet.contracts.search import SearchRequest
from tests.page.conftest import OpenPage
from tests.page.modules import Run, run_modules

_MODULES = """
async () => {
  const names = ['api', 'ask-form', 'events', 'format', 'key', 'python-code', 'router', 'search-model', 'snippets', 'verdict'];
  window.t = Object.assign({}, ...(await Promise.all(names.map((name) => import(`/lib/${name}.js`)))));
  window.node = (id, parent, more = {}) => ({id, parent, depth: 1, state: 'open', text: id, status: 'ok', stdout: '',
    stderr: '', prm_score: 0.5, prior: 0, visits: 1, q: 0, tokens: 1, seconds: 0, answer: null, ended_by: null, ...more});
}
"""
HOSTILE = 'it\'s "so"; $(rm -rf ~) `id` \\ \\n ${x} %s {0}\nline\u2028two\t</script><b>é😀\x07'


@pytest.fixture
async def run(files: str, open_page: OpenPage) -> Run:
    """See Run."""
    return await run_modules(await open_page(), files, _MODULES)


async def test_events_are_read_however_the_stream_is_cut(run: Run) -> None:
    data = json.dumps({"text": "a\u2028b: c\nd", "emoji": "😀"}, ensure_ascii=False)
    first = f": ping\r\n\r\nid: 1-0\r\nevent: node\r\ndata: {data}\r\n\r\n"
    stream = first + "event: state\ndata: {}\n\nid: 2-0\nevent: end\ndata:{}\n\n"
    for size in (1, 2, 3, 7, 1000):
        events = await run(
            """([stream, size]) => {
              const parser = new t.EventParser();
              const events = [];
              for (let at = 0; at < stream.length; at += size) events.push(...parser.take(stream.slice(at, at + size)));
              return events;
            }""",
            [stream, size],
        )
        assert events == [
            {"kind": "node", "id": "1-0", "data": json.loads(data)},
            {"kind": "state", "id": None, "data": {}},
            {"kind": "end", "id": "2-0", "data": {}},
        ], size


async def test_events_that_come_twice_or_late_give_the_same_search(run: Run) -> None:
    found = await run("""() => {
      const events = [
        {kind: 'state', data: {state: 'running', reason: null}},
        {kind: 'node', data: node('root', null, {depth: 0})},
        {kind: 'node', data: node('a', 'root')},
        {kind: 'node', data: node('b', 'a', {state: 'terminal', answer: '42', visits: 1})},
        {kind: 'answer', data: {node: 'b', answer: '42', prm_score: 0.9, votes: 1}},
        {kind: 'node', data: node('c', 'root', {state: 'terminal', answer: '7', visits: 3})},
        {kind: 'node', data: node('b', 'a', {state: 'terminal', answer: '42', visits: 2})},
      ];
      const told = (order) => {
        const model = t.createSearchModel();
        for (const event of order) model.apply(event);
        const answers = model.answers.map((each) => [each.answer, each.votes, each.share]);
        return {children: [...model.children], path: model.pathTo('b').map((each) => each.id), answers};
      };
      return [told(events), told([...events, ...events])];
    }""")
    assert found[0] == found[1]
    assert dict(map(tuple, found[0]["children"])) == {"root": ["a", "c"], "a": ["b"]}
    assert found[0]["path"] == ["a", "b"]
    assert found[0]["answers"] == [["7", 3, 0.6], ["42", 2, 0.4]]


async def test_answers_that_the_vote_counts_as_one_are_one_while_the_search_runs(run: Run) -> None:
    found = await run("""() => {
      const model = t.createSearchModel();
      const half = {state: 'terminal', visits: 1, answer_group: 'a1'};
      model.apply({kind: 'node', data: node('root', null, {depth: 0})});
      model.apply({kind: 'node', data: node('a', 'root', {...half, answer: '1/2'})});
      model.apply({kind: 'node', data: node('b', 'root', {...half, answer: '0.5'})});
      model.apply({kind: 'node', data: node('c', 'root', {...half, answer: '7', answer_group: 'b2'})});
      model.apply({kind: 'answer', data: {node: 'b', answer: '0.5', answer_group: 'a1', prm_score: 0.9, votes: 2}});
      return model.answers.map((each) => [each.answer, [...each.spellings], each.votes]);
    }""")
    assert found == [["1/2", ["1/2", "0.5"], 3], ["7", ["7"], 1]]


async def test_texts_that_are_known_whole_are_not_cut_by_a_later_event(run: Run) -> None:
    assert await run("""() => {
      const model = t.createSearchModel();
      model.loadTree([{nodes: [node('a', 'root', {text: 'x'.repeat(2000), stdout: 'old'})]}]);
      model.apply({kind: 'node', data: node('a', 'root', {text: 'x'.repeat(1000), stdout: 'new', visits: 9})});
      const {text, stdout, visits} = model.nodes.get('a');
      return [text.length, stdout, visits];
    }""") == [2000, "new", 9]


async def test_a_failed_search_that_is_taken_up_again_is_not_over(run: Run) -> None:
    assert await run("""() => {
      const model = t.createSearchModel();
      model.setResult({state: 'queued', reason: null});
      for (const state of ['running', 'failed', 'queued', 'running']) model.apply({kind: 'state', data: {state, reason: null}});
      return [model.over, model.result.state];
    }""") == [False, "running"]


async def test_what_was_typed_becomes_a_request_that_the_api_takes(run: Run) -> None:
    typed = {
        "problem": HOSTILE.replace("\x07", ""), "strategy": "beam", "require": "execution", "tokens": " 500 ", "nodes": "40",
        "minConfidence": "87.5", "rollouts": "8", "temperature": "0.5", "seed": "3", "policy": "nano@1",
    }  # fmt: skip
    body = await run("(typed) => t.requestOf({...t.BLANK, ...typed})", typed)
    request = SearchRequest.model_validate(body)
    assert (request.problem, request.require, request.min_confidence) == (
        typed["problem"],
        "execution",
        0.875,
    )
    assert (request.budget.tokens, request.budget.seconds, request.budget.nodes) == (500, 600, 40)
    assert await run("(typed) => t.requestOf({...t.BLANK, ...typed, reference: ' 42 '})", typed) == {
        "reference_answer": "42",
        **{name: value for name, value in body.items() if name != "require"},
    }
    assert await run("() => t.requestOf({...t.BLANK, problem: 'p'})") == {"problem": "p", "strategy": "auto"}


async def test_a_search_is_asked_again_as_it_was_asked(run: Run) -> None:
    request = SearchRequest(problem="p", seed=4, min_confidence=0.29)
    asked = {
        **request.model_dump(mode="json", include={"parameters", "budget", "models", "priority", "require"}),
        "min_confidence": 0.29,
    }
    asked["parameters"]["width"] = 3
    asked["budget"]["tokens"] = 77
    result = {"problem": "p", "strategy": "mcts", "seed": 4, "asked": asked}
    again = await run("(result) => t.requestOfResult(result)", result)
    assert again == {
        "problem": "p", "strategy": "mcts", "seed": 4, "parameters": {"width": 3}, "budget": {"tokens": 77},
        "min_confidence": 0.29,
    }  # fmt: skip
    typed = await run("(result) => t.requestOf(t.typedOf(result))", result)
    assert typed == {name: value for name, value in again.items() if name != "parameters"}


async def test_what_is_copied_says_the_same_to_shell_and_python(run: Run) -> None:
    request = {
        "problem": HOSTILE,
        "strategy": "mcts",
        "budget": {"tokens": 5},
        "models": {"prm": None},
        "x": [True, 0.5],
    }
    words = shlex.split(await run("(request) => t.curlOf(request)", request))
    assert words[0] == "curl"
    assert json.loads(words[words.index("-d") + 1]) == {**request, "wait": 300}
    program = ast.parse(await run("(request) => t.pythonOf(request)", request))
    (call,) = [
        each
        for each in ast.walk(program)
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == "solve"
    ]
    said = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
    assert {"problem": ast.literal_eval(call.args[0]), **said} == request


async def test_colours_leave_code_as_it_is(run: Run) -> None:
    for code in (
        HOSTILE,
        '# why\nx = f\'a{1}\' + """b\n\'\'\'"""  # c\nfor i in range(1_0): print(i, 1e3)',
        "'open",
        "",
    ):
        pieces = await run("(code) => t.piecesOf(code)", code)
        assert "".join(each["text"] for each in pieces) == code
    kinds = await run("() => t.piecesOf('for x in 3: # no').map((each) => each.kind).filter(Boolean)")
    assert kinds == ["keyword", "keyword", "number", "comment"]


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        ("percent(0.001)", "<1%"), ("percent(0.999)", ">99%"), ("percent(1)", "100%"), ("percent(0)", "0%"),
        ("percent(null)", "–"), ("duration(0.25)", "250 ms"), ("duration(61)", "1 min 1 s"), ("duration(7260)", "2 h 1 min"),
        ("plural(1, 'step')", "1 step"), ("plural(1200, 'step')", "1,200 steps"), ("score(0.5)", "0.50"),
    ],
)  # fmt: skip
async def test_figures_are_read_as_people_read_them(run: Run, function: str, shown: str) -> None:
    assert await run(f"() => t.{function}") == shown


async def test_the_verdict_says_what_falls_short(run: Run) -> None:
    verification = {
        "level": "execution", "votes": 1, "total_votes": 4, "independent_programs": 1, "forms": 1, "grounded": True,
        "prm_share": 0.2, "confidence": 0.5, "min_confidence": 0.8,
    }  # fmt: skip
    tones = await run("(of) => t.findingsOf(of).map((each) => each.tone)", verification)
    assert tones == ["warn", "warn", "plain", "good"]

    async def said(**changes: Any) -> str:
        result = {
            "state": "answered_unverified",
            "reason": None,
            "asked": None,
            "verification": verification | changes,
        }
        return str(await run("(result) => t.endingOf(result).text", result))

    assert "agreement was asked for" in await said()
    assert "50%; 80%" in await said(level="agreement")
    assert "not calibrated" in await said(level="agreement", confidence=None)
    assert "reference answer" in await said(level="agreement", confidence=0.9)


async def test_a_key_leaves_the_address_at_once_and_the_rest_stays(run: Run) -> None:
    assert await run("""() => {
      location.hash = '#/compare?a=1&key=rk_x%2Fy&b=2';
      t.takeKeyFromAddress();
      return [location.hash, t.currentKey(), localStorage.getItem('ratchet.key'), t.currentRoute().parts];
    }""") == ["#/compare?a=1&b=2", "rk_x/y", "rk_x/y", ["compare"]]
