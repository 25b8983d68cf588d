// The tree's tab over a model that a synthetic search feeds, in place of whatever the page showed: 5,000 nodes, and then 50 more
// a second, each with the visits of those above it. Frames are the browser's own; layouts are timed by the tree's worker.
async ({ nodes, rate, seconds }) => {
  const load = (path) => import(new URL(`page/${path}`, document.baseURI).href);
  const { html, render } = await load("vendor/preact-htm.js");
  const { createSearchModel } = await load("lib/search-model.js");
  const { TreeTab } = await load("tree/tree-tab.js");
  const box = document.createElement("main");
  box.className = "view wide";
  document.body.replaceChildren(box);

  const layouts = [];
  new PerformanceObserver((list) => layouts.push(...list.getEntriesByName("tree-layout").map((each) => each.duration))).observe({ type: "measure" });
  const model = createSearchModel();
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const until = async (holds, what) => {
    for (let turn = 0; !holds(); turn++) {
      if (turn > 600) throw new Error(`${what}: not within a minute`);
      await wait(100);
    }
  };

  const grown = synthetic();
  render(html`<${TreeTab} model=${model} searchId="synthetic" nodeId=${null} />`, box);
  await until(() => box.querySelector("canvas"), "the canvas");
  await wait(300);
  const began = performance.now();
  grown(1);
  await until(() => performance.getEntriesByName("tree-first-node").length > 0, "the first node");
  const firstNode = performance.getEntriesByName("tree-first-node")[0].startTime - began;

  grown(nodes - 1);
  await until(() => model.nodes.size > nodes && Number(box.querySelector("[role=treeitem]")?.getAttribute("aria-setsize")) === 1, "the tree");
  await wait(3000);

  layouts.length = 0;
  const frames = [];
  const start = performance.now();
  let [last, due] = [start, 0];
  await new Promise((done) => {
    const tick = (now) => {
      frames.push(now - last);
      due += ((now - last) / 1000) * rate;
      last = now;
      grown(Math.floor(due));
      due -= Math.floor(due);
      if (now - start < seconds * 1000) requestAnimationFrame(tick);
      else done();
    };
    requestAnimationFrame((now) => {
      last = now;
      requestAnimationFrame(tick);
    });
  });
  const sorted = (values) => [...values].sort((a, b) => a - b);
  const total = frames.reduce((sum, each) => sum + each, 0);
  const result = {
    fps: (frames.length / total) * 1000,
    p95_frame_ms: sorted(frames)[Math.floor(frames.length * 0.95)],
    layout_ms: sorted(layouts)[Math.floor(layouts.length / 2)] ?? null,
    layouts: layouts.length,
    first_node_ms: firstNode,
    nodes: model.nodes.size,
  };
  render(null, box);
  return result;

  // What grows the tree by so many nodes, as events of the search's stream.
  function synthetic() {
    let seed = 7;
    const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
    const made = [{ id: "root", parent: null, depth: 0, state: "open", text: "", status: null, stdout: "", stderr: "", prm_score: null, prior: 0, visits: 0, q: 0, tokens: 0, seconds: 0, answer: null, ended_by: null }];
    const byId = new Map([["root", made[0]]]);
    const open = [made[0]];
    const tell = (node) => model.apply({ kind: "node", data: { ...node } });
    model.apply({ kind: "state", data: { state: "running", reason: null } });
    return (count) => {
      for (let each = 0; each < count; each++) {
        const parent = open[Math.floor(random() ** 0.7 * open.length)];
        const depth = parent.depth + 1;
        const ends = depth >= 4 && random() < 0.5;
        const fails = !ends && random() < 0.1;
        const node = { ...made[0], id: made.length.toString(16).padStart(16, "0"), parent: parent.id, depth, state: fails ? "failed" : ends ? "terminal" : "open", text: `# step ${depth}\nx${made.length} = ${Math.floor(random() * 1000)} + ${depth}`, status: fails ? "error" : "ok", stdout: ends ? `${made.length}\n` : "", prm_score: random(), visits: 0, q: random(), tokens: 20, seconds: 0.01, answer: ends ? `${made.length % 5}` : null };
        made.push(node);
        byId.set(node.id, node);
        if (!fails && !ends && depth < 12) open.push(node);
        for (let above = node; above; above = byId.get(above.parent)) {
          above.visits += 1;
          tell(above);
        }
      }
    };
  }
}
