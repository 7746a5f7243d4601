// Two predictions side by side: of one model by two predictors, or of two variants by one.

// Kernels that have a node in common stand in one row, as many as that takes: runtimes fuse differently.
function byLayer(one, other) {
  const parent = new Map();
  const find = (item) => {
    while (parent.get(item) !== item) {
      parent.set(item, parent.get(parent.get(item)));
      item = parent.get(item);
    }
    return item;
  };
  const keep = (item) => parent.has(item) || parent.set(item, item);
  for (const kernel of [...one.kernels, ...other.kernels]) {
    keep(kernel);
    for (const name of kernel.nodes) {
      keep(name);
      parent.set(find(name), find(kernel));
    }
  }
  return grouped(one, other, (kernel) => (kernel.nodes.length ? find(kernel) : kernel.label), (kernel) =>
    (kernel.nodes.length ? kernel.layer : `${kernel.label} (of no node)`));
}

const byModule = (one, other) => grouped(one, other, (kernel) => kernel.levels.slice(0, 2).join(".") || "–", null);
const byKind = (one, other) => grouped(one, other, (kernel) => kernel.kind, null);
const WAYS = { layer: byLayer, module: byModule, kind: byKind };

function grouped(one, other, keyOf, nameOf) {
  const rows = new Map();
  for (const [side, prediction] of [one, other].entries()) {
    for (const kernel of prediction.kernels) {
      const key = keyOf(kernel);
      if (!rows.has(key)) rows.set(key, { name: nameOf ? nameOf(kernel) : key, sides: [[], []], place: rows.size });
      rows.get(key).sides[side].push(kernel);
    }
  }
  return [...rows.values()].map((row) => {
    const [a, b] = row.sides.map((kernels) => (kernels.length ? sum(kernels.map((kernel) => kernel.ms)) : null));
    return { ...row, a, b, more: (b || 0) - (a || 0), label: [...new Set(row.sides.flat().map((kernel) => kernel.label))].join(", ") };
  });
}

// What all have in common tells none from another, and a narrow window shows the beginning alone.
const several = (part) => new Set(predictions.map(part)).size > 1;
const [models, answerers] = [(each) => each.model, (each) => `${each.predictor} ${each.version}`];
const titled = (each) => (several(models) ? (several(answerers) ? `${each.model} on ${answerers(each)}` : each.model) : answerers(each));

// What is compared stays so when another prediction is shown; as long as nobody chose, layers where the two share some.
const comparing = { sides: predictions.slice(0, 2), by: "", sort: "difference" };

const inBoth = (rows) => rows.filter((row) => row.a !== null && row.b !== null).length;

function fitting(one, other) {
  const rows = byLayer(one, other);
  return 3 * inBoth(rows) < rows.length ? "kind" : "layer";
}

function compare() {
  const out = make("div");
  const choose = (side) => make("select", {
    "aria-label": side ? "compared with" : "first", "data-side": side,
    onchange(event) {
      comparing.sides[side] = predictions[Number(event.target.value)];
      draw();
    },
  }, ...predictions.map((each, place) => make("option", { value: place, selected: each === comparing.sides[side] ? "" : null }, titled(each))));
  const pick = (label, values, chosen, now) => make("select", { "aria-label": label, onchange: (event) => chosen(event.target.value) },
    ...values.map((value) => make("option", { value, selected: value === now ? "" : null }, `${label} ${value}`)));
  const ways = pick("by", Object.keys(WAYS), (value) => { comparing.by = value; draw(); }, comparing.by);
  const tools = make("div", { class: "tools" }, choose(0), make("span", null, "→"), choose(1), ways,
    pick("sorted by", ["difference", "execution"], (value) => { comparing.sort = value; draw(); }, comparing.sort));

  function draw() {
    const [one, other] = comparing.sides;
    const { sort } = comparing;
    const by = comparing.by || fitting(one, other);
    ways.value = by;
    const rows = WAYS[by](one, other);
    if (sort === "difference") rows.sort((a, b) => Math.abs(b.more) - Math.abs(a.more) || a.place - b.place);
    const most = Math.max(...rows.map((row) => Math.abs(row.more)), 0);
    const both = inBoth(rows);
    const calls = one.call_ms || other.call_ms
      ? [line({ name: "call of the runtime", label: "", a: one.call_ms, b: other.call_ms, more: other.call_ms - one.call_ms, sides: [[], []] }, by, most)] : [];
    const total = line({ name: "total", label: "", a: one.ms, b: other.ms, more: other.ms - one.ms, sides: [[], []] }, by, 0, "total");
    const heads = [[by, "name"], ...(by === "layer" ? [["kernel", "wide"]] : []), ["first ms", "n"], ["second ms", "n"], ["difference", "n wide"], ["", "wide"], ["ratio", "n"]];
    const said = `${both} of ${counted(rows.length, "row")} are in both.${both ? "" : " The two share no name: compare them by kind."}`;
    out.replaceChildren(make("p", { class: "found" }, said),
      table(heads, [total, ...calls, ...rows.map((row) => line(row, by, most))], { class: "compare" }));
    out.querySelector(".scroll").classList.add("tall");
  }

  function line(row, by, most, kind) {
    const bar = make("div", { class: `fill ${row.more > 0 ? "more" : "less"}` });
    const half = most ? Math.min(50, (50 * Math.abs(row.more)) / most) : 0; // a call may differ by more than any layer
    bar.style.width = `${half}%`;
    bar.style.marginLeft = `${row.more > 0 ? 50 : 50 - half}%`;
    const ratio = row.a && row.b !== null ? times(row.b / row.a) : row.a === null ? "only second" : row.b === null ? "only first" : "–";
    const shown = row.sides.flat().find((kernel) => looking.at.kernels[kernel.index] === kernel);
    return make("tr", { class: kind, onclick: shown ? () => look(shown, "compare") : () => {} },
      make("td", { class: "name" }, ...broken(row.name)), ...(by === "layer" ? [make("td", { class: "wide" }, row.label)] : []),
      make("td", { class: "n" }, ms(row.a)), make("td", { class: "n" }, ms(row.b)), make("td", { class: "n wide" }, row.more ? signed(row.more) : "0"),
      make("td", { class: "bar wide" }, bar), make("td", { class: "n" }, ratio));
  }

  draw();
  const hint = "Aligned by the nodes that kernels have in common; the difference is second less first.";
  return section("compare", "Compare", hint, tools, out);
}
