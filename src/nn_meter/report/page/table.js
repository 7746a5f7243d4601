// Every kernel in a table: sorted by a click on a head, searched, filtered, saved.

const COLUMNS = [
  { name: "#", kind: "n wide", of: (kernel) => kernel.index + 1 },
  { name: "layer", kind: "name", of: (kernel) => kernel.layer },
  { name: "kernel", kind: "label wide", of: (kernel) => kernel.label },
  { name: "kind", kind: "wide", of: (kernel) => kernel.kind },
  { name: "shape", kind: "shape wide", of: (kernel) => kernel.shape.replaceAll("->", "→") }, // a line may end between the two signs
  { name: "ms", kind: "n", of: (kernel) => kernel.ms },
  { name: "share", kind: "n bar", of: (kernel) => kernel.ms },
  { name: "bound", kind: "wide", of: (kernel) => kernel.bound },
  { name: "status", kind: "wide own", of: (kernel) => kernel.status },
];
const FIGURES = new Set(["#", "ms", "share"]);
const ADDED = new Set(["ms", "share"]);
const FOLDED = 50; // of more kernels, equal layers are one row at first
const ORDER = new Intl.Collator("en", { numeric: true });

function layers(prediction) {
  let sorted = { column: COLUMNS[5], down: true };
  let shown = [];
  const foldable = prediction.folds.length < prediction.kernels.length;
  const open = new Set(); // folds whose kernels stand below them
  const rows = prediction.kernels.map((kernel) => row(kernel, prediction));
  const body = make("tbody");
  const heads = COLUMNS.map((column) => {
    const sort = () => {
      const down = column === sorted.column ? !sorted.down : FIGURES.has(column.name) && column.name !== "#";
      sorted = { column, down };
      draw();
    };
    return make("th", { scope: "col", class: column.kind, "data-column": column.name }, make("button", { type: "button", onclick: sort }, column.name));
  });
  const search = make("input", { type: "search", placeholder: "search layer, operator, shape …", "aria-label": "search", oninput: draw });
  const kinds = filter("kind", prediction.kernels.map((kernel) => kernel.kind), draw);
  const folding = make("select", { "aria-label": "rows", "data-filter": "rows", hidden: foldable ? null : "", onchange: draw },
    make("option", { value: "folds", selected: prediction.kernels.length > FOLDED ? "" : null }, "equal layers together"),
    make("option", { value: "", selected: prediction.kernels.length > FOLDED ? null : "" }, "each kernel"));
  const statuses = filter("status", prediction.kernels.map((kernel) => kernel.status), draw);
  const found = make("p", { class: "found", "aria-live": "polite" });

  function matches(kernel) {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const said = [kernel.layer, kernel.label, kernel.kind, kernel.shape, ...kernel.nodes].join(" ").toLowerCase();
    return (!kinds.value || kernel.kind === kinds.value) && (!statuses.value || kernel.status === statuses.value)
      && words.every((word) => said.includes(word));
  }

  function draw() {
    shown = prediction.kernels.filter(matches);
    const together = foldable && folding.value === "folds";
    const groups = [...Map.groupBy(shown, (kernel) => (together ? kernel.fold : kernel.index)).values()].map(grouping);
    const most = Math.max(...groups.map(({ kernels }) => sum(kernels.map((kernel) => kernel.ms))), 0);
    const lines = groups.sort(before).flatMap(({ kernels }) => {
      if (kernels.length === 1) return [plain(kernels[0], most)];
      const { fold } = kernels[0];
      const head = foldRow(kernels, prediction, open.has(fold), () => { if (!open.delete(fold)) open.add(fold); draw(); });
      return [filled(head, sum(kernels.map((kernel) => kernel.ms)), most),
        ...(open.has(fold) ? kernels.map((kernel) => plain(kernel, most, true)) : [])];
    });
    shown = groups.flatMap(({ kernels }) => kernels);
    body.replaceChildren(...lines);
    heads.forEach((head, place) => {
      const own = COLUMNS[place] === sorted.column;
      head.setAttribute("aria-sort", own ? (sorted.down ? "descending" : "ascending") : "none");
    });
    const time = sum(shown.map((kernel) => kernel.ms));
    const share = percent(prediction.ms ? time / prediction.ms : 0);
    const folded = groups.length < shown.length ? ` in ${counted(groups.length, "row")}` : "";
    found.textContent = `${shown.length} of ${counted(prediction.kernels.length, "kernel")}${folded}, ${ms(time)} ms, ${share}`;
  }

  // What a group is sorted by: the time of all, else what its first kernel says.
  function grouping(kernels) {
    const { column } = sorted;
    return { kernels, key: kernels.length > 1 && ADDED.has(column.name) ? sum(kernels.map(column.of)) : column.of(kernels[0]) };
  }

  function before(one, other) {
    const sign = sorted.down ? -1 : 1;
    const way = typeof one.key === "number" ? one.key - other.key : ORDER.compare(one.key, other.key);
    return sign * way || one.kernels[0].index - other.kernels[0].index;
  }

  function plain(kernel, most, within = false) {
    rows[kernel.index].classList.toggle("within", within);
    return filled(rows[kernel.index], kernel.ms, most);
  }

  const save = make("button", { type: "button", id: "csv", onclick: () => download(prediction, shown) }, "CSV");
  const alike = new Set(prediction.kernels.map((kernel) => kernel.status)).size < 2;
  const scroll = make("div", { class: "scroll tall" }, make("table", { class: `layers${alike ? " alike" : ""}` }, make("thead", null, make("tr", null, ...heads)), body));
  const detail = make("div", { class: "detail", "aria-live": "polite" });
  looking.hear.push((kernel, from) => {
    rows.forEach((each, index) => each.classList.toggle("marked", kernel !== null && index === kernel.index));
    detail.replaceChildren(...(kernel === null ? [] : about(kernel, prediction)));
    if (kernel === null || from === "table") return;
    if (!shown.includes(kernel)) search.value = kinds.value = statuses.value = "";
    open.add(kernel.fold);
    draw();
    centre(scroll, rows[kernel.index]);
  });
  draw();
  const tools = make("div", { class: "tools" }, search, folding, kinds, statuses, save);
  const note = make("p", { class: "paper" }, "On paper: the first fifty rows.");
  return section("layers", "Layers", "", tools, found, scroll, note, detail);
}

function row(kernel, prediction) {
  const row = rowOf(kernel, prediction, {
    layer: [make("span", { class: "text" }, ...broken(kernel.layer)), copier(kernel.nodes[0] || kernel.layer, "the layer's name"),
      make("span", { class: "small" }, kernel.label)],
  });
  for (const [name, value] of Object.entries({ class: kernel.status, "data-kernel": kernel.index, tabindex: 0 })) row.setAttribute(name, value);
  row.querySelector(".name").title = kernel.nodes.join("\n");
  row.addEventListener("click", () => look(kernel, "table"));
  row.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.target === row) look(kernel, "table"); });
  return row;
}

function filled(row, time, most) {
  row.querySelector(".fill").style.width = `${most ? (100 * time) / most : 0}%`;
  return row;
}

function rowOf(kernel, prediction, own) {
  const shown = {
    kernel: broken(kernel.label),
    ms: [ms(kernel.ms)],
    share: [make("span", null, percent(prediction.ms ? kernel.ms / prediction.ms : 0)), make("div", { class: "fill" })],
    status: [make("span", { class: `status ${kernel.status}` }, kernel.status)],
    ...own,
  };
  return make("tr", null, ...COLUMNS.map((column) => make("td", { class: column.kind }, ...(shown[column.name] || [String(column.of(kernel))]))));
}

// Equal layers as one row: their time together, and a click that shows them one by one.
function foldRow(kernels, prediction, open, toggle) {
  const [first] = kernels;
  const row = rowOf({ ...first, ms: sum(kernels.map((kernel) => kernel.ms)) }, prediction, {
    "#": [open ? "▾" : "▸"],
    layer: [make("span", { class: "text" }, ...broken(prediction.folds[first.fold])), make("span", { class: "count" }, `×${kernels.length}`),
      make("span", { class: "small" }, first.label)],
  });
  for (const [name, value] of Object.entries({ class: "fold", "data-fold": first.fold, tabindex: 0, "aria-expanded": open })) row.setAttribute(name, value);
  row.addEventListener("click", toggle);
  row.addEventListener("keydown", (event) => { if (event.key === "Enter") toggle(); });
  return row;
}

function filter(name, values, changed) {
  const options = [...new Set(values)].sort(ORDER.compare).map((value) => make("option", { value }, value));
  return make("select", { "aria-label": name, "data-filter": name, hidden: options.length > 1 ? null : "", onchange: changed }, make("option", { value: "" }, `every ${name}`), ...options);
}

// All that is known of one kernel.
function about(kernel, prediction) {
  const share = percent(prediction.ms ? kernel.ms / prediction.ms : 0);
  const interval = kernel.interval ? `, 90 % between ${ms(kernel.interval[0])} and ${ms(kernel.interval[1])} ms` : "";
  const facts = [
    ["time", `${ms(kernel.ms)} ms, ${share} of the total${interval}`],
    ["kernel", `${kernel.label}, of kind ${kernel.kind}`],
    ["shape", kernel.shape],
    ["bound by", kernel.bound],
    ["rests on", [kernel.status, ...kernel.notes].join("; ")],
    ["beyond", kernel.beyond ? `${kernel.beyond.toFixed(1)} doublings outside of what was trained on` : ""],
  ].filter(([, value]) => value);
  const nodes = kernel.nodes.map((name) => make("li", null, make("code", null, name), " ", copier(name, "this name")));
  return [
    make("h3", null, kernel.layer),
    make("dl", null, ...facts.flatMap(([name, value]) => [make("dt", null, name), make("dd", null, value)])),
    nodes.length ? make("p", null, `${counted(nodes.length, "node")} of the model:`) : "",
    make("ul", { class: "nodes" }, ...nodes),
    make("button", { type: "button", onclick: () => look(null, "detail") }, "close"),
  ].filter(Boolean);
}

// A cell that a spreadsheet would take for a formula is marked as text: names come from models.
function cell(value) {
  const plain = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

function csv(prediction, kernels) {
  const heads = ["index", "layer", "nodes", "kernel", "kind", "shape", "latency_ms", "share", "bound", "status", "notes"];
  const lines = kernels.map((kernel) => [
    kernel.index, kernel.layer, kernel.nodes.join(" "), kernel.label, kernel.kind, kernel.shape, kernel.ms,
    prediction.ms ? kernel.ms / prediction.ms : 0, kernel.bound, kernel.status, kernel.notes.join("; "),
  ].map(cell).join(","));
  return `${[heads.join(","), ...lines].join("\n")}\n`;
}

function download(prediction, kernels) {
  const address = URL.createObjectURL(new Blob([csv(prediction, kernels)], { type: "text/csv" }));
  const name = `${prediction.model}_${prediction.predictor}`.replace(/[^\w.-]+/g, "_").slice(0, 100);
  const link = make("a", { href: address, download: `${name}.csv` });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
