"""The tree's pure modules, run in Chromium as they are served: no stack, no build."""

import re
from typing import Any

import pytest

from tests.page.conftest import OpenPage
from tests.page.modules import Run, run_modules

_MODULES = """
async () => {
  const names = ['shown-tree', 'layout', 'layout-client', 'filters', 'rows', 'replay', 'journal', 'viewport', 'scene',
    'explorer', 'modules'];
  window.t = Object.assign({}, ...(await Promise.all(names.map((name) => import(`/tree/${name}.js`)))));
  Object.assign(window.t, await import('/lib/search-model.js'));
  window.node = (id, parent, more = {}) => ({id, parent, depth: 1, state: 'open', text: id, status: 'ok', stdout: '',
    stderr: '', prm_score: 0.5, prior: 0, visits: 0, q: 0, tokens: 1, seconds: 0, answer: null, ended_by: null, ...more});
  window.treeOf = (...pairs) => {
    const tree = new t.ShownTree();
    tree.take(pairs.map(([id, parent, more]) => node(id, parent, more)));
    return tree;
  };
  window.wide = (count) => {
    let seed = 5;
    const parents = [-1];
    while (parents.length < count) parents.push((seed = (seed * 48271) % 2147483647) % parents.length);
    return parents;
  };
}
"""


@pytest.fixture
async def run(files: str, open_page: OpenPage) -> Run:
    """See Run."""
    return await run_modules(await open_page(), files, _MODULES)


async def test_a_layout_keeps_nodes_of_a_depth_apart_and_in_order(run: Run) -> None:
    found = await run("""() => {
      const parents = wide(1500);
      const { rows, order, height } = t.layOut(parents);
      const depths = parents.map(() => 0);
      parents.forEach((parent, number) => { if (number) depths[number] = depths[parent] + 1; });
      const last = {};
      let least = Infinity;
      for (const number of order) {
        const depth = depths[number];
        if (last[depth] !== undefined) least = Math.min(least, rows[number] - last[depth]);
        last[depth] = rows[number];
      }
      return { least, top: Math.min(...rows), bottom: Math.max(...rows), height, seen: new Set(order).size };
    }""")
    assert found["least"] > 0.999
    assert abs(found["top"]) < 0.01
    assert abs(found["bottom"] - found["height"]) < 0.01
    assert found["seen"] == 1500


async def test_a_worker_told_of_a_tree_bit_by_bit_lays_it_out_as_at_once(run: Run) -> None:
    same = await run("""() => {
      const parents = wide(400);
      const state = new t.LayoutState();
      let layout;
      for (const [from, to] of [[0, 1], [1, 90], [90, 400]]) layout = state.answer({ from, parents: parents.slice(from, to) });
      const whole = t.layOut(parents);
      return whole.rows.every((row, number) => row === layout.rows[number]) && layout.ms >= 0;
    }""")
    assert same is True


async def test_layouts_are_asked_for_one_at_a_time_with_what_came_in_between(run: Run) -> None:
    asked = await run("""() => {
      const queue = new t.LayoutQueue();
      const sent = [queue.next([-1]), queue.next([-1, 0]), queue.next([-1, 0, 0])];
      queue.answered();
      sent.push(queue.next([-1, 0, 0, 1]));
      queue.answered();
      sent.push(queue.next([-1, 0, 0, 1]));
      return sent.map((each) => each && { from: each.from, parents: [...each.parents] });
    }""")
    assert asked == [{"from": 0, "parents": [-1]}, None, None, {"from": 1, "parents": [0, 0, 1]}, None]


async def test_a_node_that_comes_before_its_parent_waits_for_it(run: Run) -> None:
    found = await run("""() => {
      const tree = new t.ShownTree();
      const counts = [tree.take([node('c', 'b')]), tree.take([node('c', 'b', { visits: 2 })]), tree.take([node('b', 'root')])];
      return { counts, path: tree.pathTo(tree.numberOf('c')), visits: tree.nodes[tree.numberOf('c')].visits };
    }""")
    assert found == {"counts": [0, 0, 2], "path": [0, 1, 2], "visits": 2}


async def test_the_answers_way_is_found_by_whole_texts_also_where_they_were_cut(run: Run) -> None:
    found = await run("""() => {
      const long = 'x'.repeat(1000);
      const tree = treeOf(['a', 'root', { text: 'a = 17' }], ['b', 'root', { text: 'a = 17 - 1' }], ['c', 'b', { text: long }]);
      const end = (...texts) => { const at = tree.find(texts); return at < 0 ? null : tree.nodes[at].id; };
      return [end('a = 17 - 1'), end('a = 17 - 1', long + 'y'), end('a = 1'), end('a = 17', long)];
    }""")
    assert found == ["b", "c", None, None]


async def test_filters_mean_what_they_say(run: Run) -> None:
    found = await run("""() => {
      const tree = treeOf(['a', 'root', { state: 'failed', prm_score: null, stderr: 'ZeroDivision' }],
        ['b', 'root', { answer: '42', state: 'terminal', prm_score: 0.9 }],
        ['c', 'root', { prm_score: 0.2, text: 'Total = 1' }]);
      const filters = [{}, { failed: true }, { answered: true }, { failed: true, answered: true }, { below: 0.5 },
        { text: ' total ' }, { text: 'zerodiv', failed: true }, { text: 'zerodiv', answered: true }, { below: 0 }];
      return filters.map((change) => {
        const found = t.findMatches(tree, { ...t.NO_FILTER, ...change });
        return found && found.numbers.map((each) => tree.nodes[each].id);
      });
    }""")
    assert found == [None, ["a"], ["b"], ["a", "b"], ["c"], ["c"], ["a"], [], []]


async def test_the_outline_lists_what_is_open_and_draws_what_is_on_the_screen(run: Run) -> None:
    found = await run("""() => {
      const tree = treeOf(['a', 'root'], ['b', 'root'], ['a1', 'a'], ['a2', 'a'], ['b1', 'b']);
      const ids = (closed, hidden = '') => {
        const numbers = new Set(closed.map((id) => tree.numberOf(id)));
        return t.visibleRows(tree, numbers, (each) => tree.nodes[each].id !== hidden).map((each) => tree.nodes[each].id);
      };
      return [ids([]), ids(['a']), ids([], 'b'), t.rowsOnScreen({ top: 2800, height: 280, row: 28, count: 5000 }),
        t.rowsOnScreen({ top: 0, height: 280, row: 28, count: 3 })];
    }""")
    assert found[0] == ["root", "a", "a1", "a2", "b", "b1"]
    assert found[1] == ["root", "a", "b", "b1"]
    assert found[2] == ["root", "a", "a1", "a2"]
    assert found[3]["from"] <= 100
    assert 110 <= found[3]["to"] < 130
    assert found[4] == {"from": 0, "to": 3}


@pytest.mark.parametrize(
    ("key", "at", "move"),
    [
        ("ArrowDown", "a", {"select": "a1"}),
        ("ArrowUp", "a", {"select": "root"}),
        ("ArrowUp", "root", {"select": "root"}),
        ("Home", "b1", {"select": "root"}),
        ("End", "a", {"select": "c"}),
        ("PageDown", "a", {"select": "b"}),
        ("ArrowRight", "a", {"select": "a1"}),
        ("ArrowRight", "c", {"open": ["c"]}),
        ("ArrowRight", "b1", {}),
        ("ArrowLeft", "a", {"close": ["a"]}),
        ("ArrowLeft", "a1", {"select": "a"}),
        ("*", "b", {"open": ["a", "b", "c"]}),
        ("x", "a", None),
        ("End", "c1", {"select": "root"}),
    ],
)
async def test_keys_walk_the_outline_as_trees_are_walked(run: Run, key: str, at: str, move: Any) -> None:
    found = await run(
        """([key, at]) => {
      const tree = treeOf(['a', 'root'], ['b', 'root'], ['c', 'root'], ['a1', 'a'], ['b1', 'b'], ['c1', 'c']);
      const closed = new Set([tree.numberOf('c')]);
      const rows = t.visibleRows(tree, closed, () => true);
      const move = t.moveOf(key, { tree, rows, closed, at: tree.numberOf(at), page: 2 });
      const id = (number) => tree.nodes[number].id;
      const named = (value) => Array.isArray(value) ? value.map(id) : id(value);
      return move && Object.fromEntries(Object.entries(move).map(([name, value]) => [name, named(value)]));
    }""",
        [key, at],
    )
    assert found == move


async def test_typing_goes_to_the_next_row_that_begins_so(run: Run) -> None:
    found = await run("""() => {
      const tree = treeOf(['1', 'root', { text: '# a note\\nalpha = 1' }], ['2', 'root', { text: 'beta = 2' }],
        ['3', 'root', { text: 'Beat = 3' }]);
      const rows = t.visibleRows(tree, new Set(), () => true);
      return [['b', 0], ['b', 2], ['bea', 2], ['al', 3], ['z', 1]].map(([typed, at]) => t.findTyped({ tree, rows, at, typed }));
    }""")
    assert found == [2, 3, 3, 1, -1]


_JOURNAL = """
const task = (order, node, made, end, value, why = null) =>
  ({ number: order, node, draw: 'trajectory', order, made, end, value, why });
const tasks = [task(0, 'root', ['a', 'a1'], 'a1', 1), task(1, 'a', ['a2'], 'a2', null), task(2, 'root', ['b'], null, null)];
const tree = treeOf(['p', 'root'], ['a', 'root'], ['a1', 'a'], ['a2', 'a'], ['b', 'root'], ['late', 'b']);
"""


async def test_a_replay_has_the_nodes_and_counts_of_each_moment(run: Run) -> None:
    found = await run(f"""() => {{ {_JOURNAL}
      const replay = new t.Replay(tree, tasks, true);
      const state = () => ({{ step: replay.step, shown: tree.nodes.filter((_, each) => replay.has(each)).map((each) => each.id),
        root: [replay.visits[0], replay.q(0)], a: [replay.visits[tree.numberOf('a')], replay.q(tree.numberOf('a'))] }});
      return [0, 1, 3, 2, 9].map((step) => {{ replay.seek(step); return state(); }});
    }}""")
    start, first, all_, second, past = found
    assert start == {"step": 0, "shown": ["root", "p", "late"], "root": [0, 0], "a": [0, 0]}
    assert set(first["shown"]) == {"root", "p", "late", "a", "a1"}
    assert first["root"] == [1, 1]
    # A trajectory without an answer counts as -1; a step that ended nothing counts for nobody.
    assert all_["root"] == [2, 0] == second["root"]
    assert set(all_["shown"]) - set(second["shown"]) == {"b"}
    assert past == all_


async def test_a_replay_of_a_running_search_leaves_out_what_came_after_its_journal(run: Run) -> None:
    shown = await run(f"""() => {{ {_JOURNAL}
      const replay = new t.Replay(treeOf(['p', 'root'], ['a', 'p'], ['a1', 'a'], ['late', 'root']), tasks.slice(0, 1), false);
      const before = [...replay.shown];
      replay.seek(1);
      return [before, [...replay.shown]];
    }}""")
    # The branch's first step p leads to what the journal tells of, `late` does not.
    assert shown == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]


async def test_a_journal_is_read_to_its_end_and_again_from_there(run: Run) -> None:
    found = await run(f"""async () => {{ {_JOURNAL}
      const why = {{ rule: 'uct', words: '', steps: [{{ node: 'a', estimate: 1, explore: 1, score: 2, runner_up: null }}] }};
      tasks.push(task(3, 'a', [], 'a1', 1, why));
      const journal = new t.Journal();
      const asked = [];
      const pages = async (after) => {{
        asked.push(after);
        const from = after === null ? 0 : after + 1;
        return {{ tasks: tasks.slice(from, from + 2), next: from + 2 < tasks.length ? from + 1 : null }};
      }};
      await journal.read(pages);
      tasks.push(task(4, 'b', ['c'], 'c', 0));
      await journal.read(pages);
      return {{ asked, count: journal.tasks.length, maker: journal.makerOf('c').order, none: journal.makerOf('p'),
        chosen: journal.choicesOf('a').length }};
    }}""")
    assert found == {"asked": [None, 1, 3], "count": 5, "maker": 4, "none": None, "chosen": 1}


async def test_what_comes_while_paused_is_counted_and_shown_later(run: Run) -> None:
    found = await run("""() => {
      const model = t.createSearchModel();
      const event = (id, parent, more) => model.apply({ kind: 'node', data: node(id, parent, more) });
      event('a', 'root');
      const explorer = new t.Explorer(model);
      const states = [];
      const note = () => states.push([explorer.tree.size, explorer.waiting, explorer.tree.nodes[1].visits]);
      note();
      explorer.pause(true);
      event('a', 'root', { visits: 3 });
      event('b', 'a');
      event('b', 'a', { visits: 1 });
      explorer.flush();
      note();
      explorer.pause(false);
      note();
      return states;
    }""")
    assert found == [[2, 0, 0], [2, 1, 0], [3, 0, 3]]


async def test_selecting_opens_what_hides_the_node_and_matches_are_walked_round(run: Run) -> None:
    found = await run("""() => {
      const model = t.createSearchModel();
      const failed = { state: 'failed' };
      model.loadTree([{ nodes: [node('a', 'root'), node('b', 'a', failed), node('c', 'root', failed)] }]);
      const explorer = new t.Explorer(model);
      explorer.fold({ close: [explorer.tree.numberOf('a')] });
      explorer.setFilter({ failed: true });
      const seen = [];
      for (const step of [1, 1, 1, -1]) { explorer.selectMatch(step); seen.push(explorer.selectedId); }
      return { seen, closed: explorer.closed.size, path: [...explorer.selectedPath] };
    }""")
    assert found == {"seen": ["b", "c", "b", "c"], "closed": 0, "path": [0, 3]}


async def test_zooming_keeps_what_is_under_the_pointer_and_fitting_shows_all(run: Run) -> None:
    found = await run("""() => {
      const [size, extent] = [{ width: 600, height: 500 }, { rows: 900, depth: 7 }];
      const view = t.fit(extent, size);
      const at = (view) => [(300 - view.x) / t.columnPx(view), (200 - view.y) / t.rowPx(view)];
      const drift = [];
      let now = view;
      for (const factor of [2, 3, 1.7, 0.5, 4]) {
        const next = t.zoomAt(now, factor, 300, 200, extent, size);
        drift.push(Math.abs(at(now)[0] - at(next)[0]), Math.abs(at(now)[1] - at(next)[1]));
        now = next;
      }
      const seen = t.reveal(view, { row: 850, depth: 6 }, size);
      const small = t.fit({ rows: 4, depth: 3 }, size);
      return { small: small.x + 3 * t.columnPx(small),
        drift: Math.max(...drift), bottom: view.y + 900 * t.rowPx(view), right: view.x + 7 * t.columnPx(view),
        seen: [seen.x + 6 * t.columnPx(seen), seen.y + 850 * t.rowPx(seen)],
        kept: t.reveal(seen, { row: 850, depth: 6 }, size) === seen };
    }""")
    assert found["drift"] < 1e-6
    assert found["bottom"] <= 500
    assert found["right"] <= 600
    # The text of the last column has room.
    assert found["small"] <= 600 - 150
    assert 0 < found["seen"][0] < 600
    assert 0 < found["seen"][1] < 500
    assert found["kept"] is True


async def test_culling_leaves_out_nothing_that_is_in_sight_even_while_it_moves(run: Run) -> None:
    found = await run("""() => {
      const tree = new t.ShownTree();
      const parents = wide(900);
      const grow = (to) => {
        const nodes = [];
        const id = (number) => number === 0 ? 'root' : `n${number}`;
        for (let each = tree.size; each < to; each++) nodes.push(node(id(each), id(parents[each])));
        tree.take(nodes);
      };
      const scene = new t.Scene(tree);
      grow(300);
      scene.take(t.layOut(tree.parents), true);
      grow(900);
      scene.take(t.layOut(tree.parents), false);
      const lost = [];
      let steps = 0;
      for (let moving = true; moving && steps < 200; steps++) {
        const [top, bottom] = [100, 160];
        const seen = new Set();
        for (let depth = 0; depth < scene.byDepth.length; depth++) {
          const { from, to } = scene.between(depth, top, bottom);
          for (const number of scene.byDepth[depth].subarray(from, to)) seen.add(number);
        }
        for (let number = 0; number < scene.count; number++) {
          const row = scene.rows[number];
          if (row > top && row < bottom && !seen.has(number)) lost.push(number);
        }
        moving = scene.advance(0.2);
      }
      const there = [...scene.rows].every((row, number) => row === scene.targets[number]);
      const fourth = scene.byDepth[1][3];
      const nearest = scene.nearest(1, scene.targets[fourth] + 0.1) === fourth;
      return { lost: lost.length, steps, there, nearest };
    }""")
    assert found["lost"] == 0
    assert 5 < found["steps"] < 200
    assert found["there"] is True
    assert found["nearest"] is True


async def test_the_offline_files_script_has_every_module_after_those_it_imports(run: Run) -> None:
    script: str = await run("""() => t.bundle('tree/offline-start.js', async (path) => {
      const response = await fetch(`/${path}`);
      if (!response.ok) throw new Error(path);
      return response.text();
    })""")
    begun = list(re.finditer(r'^modules\["([\w./-]+)"\] = \(\(\) => \{$', script, re.MULTILINE))
    paths = [each[1] for each in begun]
    assert paths[-1] == "tree/offline-start.js"
    assert len(paths) == len(set(paths))
    assert "app.js" not in paths
    # Only what loads the dialog when it is asked for names it.
    assert not any("branch" in path for path in paths)
    for used in re.finditer(r'^const \{[^}]*\} = modules\["([\w./-]+)"\];$', script, re.MULTILINE):
        own = [each[1] for each in begun if each.start() < used.start()]
        assert used[1] in own[:-1], f"{own[-1]} imports {used[1]}"
    assert not re.search(r"^(import|export)\b|import\.meta", script, re.MULTILINE)


async def test_a_module_becomes_a_function_of_what_it_exports(run: Run) -> None:
    found = await run("""async () => {
      const files = {
        'a.js': "import { b as x, c } from './lib/b.js';\\nexport const sum = x + c;\\n"
          + "export async function later() { return sum; }",
        'lib/b.js': "/** import(\\"./none.js\\") */\\nimport {\\n  d,\\n} from '../d.js';\\n"
          + "const e = d; export{e as b,d as c};",
        'd.js': "export class D {}\\nexport const d = 2;",
        'circle.js': "import { x } from './circle.js';",
      };
      const script = await t.bundle('a.js', async (path) => files[path]);
      const modules = new Function(`${script}; return modules;`)();
      const circle = await t.bundle('circle.js', async (path) => files[path]).catch((error) => error.message);
      return [Object.keys(modules), modules['a.js'].sum, await modules['a.js'].later(), typeof modules['d.js'].D, circle];
    }""")
    assert found[:4] == [["d.js", "lib/b.js", "a.js"], 4, 4, "function"]
    assert "imports itself" in found[4]


async def test_data_in_a_script_element_cannot_end_it(run: Run) -> None:
    hostile = '</script><script>alert(1)</script><!-- & \u2028\u2029 "\\'
    escaped = await run("(value) => t.escapeJson({ value })", hostile)
    assert not set("<>&\u2028\u2029") & set(escaped)
    assert await run("(text) => JSON.parse(text).value", escaped) == hostile
    script = "const x = '</script><!--'; x < 1; /</.test(x)"
    kept = await run("(script) => t.escapeScript(script)", script)
    assert "</script" not in kept
    assert "<!--" not in kept
    assert await run("(script) => new Function(`${script}; return x`)()", kept) == "</script><!--"
