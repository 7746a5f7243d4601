// Every kernel in a table: sorted by a click on a head, searched, filtered, saved.

const COLUMNS = [
  { name: "#", kind: "n wide", of: (kernel) => kernel.index + 1 },
  { name: "layer", kind: "name", of: (kernel) => kernel.layer },
  { name: "kernel", kind: "label wide", of: (kernel) => kernel.label },
  { name: "kind", kind: "wide", of: (kernel) => kernel.kind },
  { name: "shape", kind: "shape wide", of: (kernel) => kernel.shape },
  { name: "ms", kind: "n", of: (kernel) => kernel.ms },
  { name: "share", kind: "n bar", of: (kernel) => kernel.ms },
  { name: "bound", kind: "wide", of: (kernel) => kernel.bound },
  { name: "status", kind: "wide", of: (kernel) => kernel.status },
];
const FIGURES = new Set(["#", "ms", "share"]);
const ORDER = new Intl.Collator("en", { numeric: true });

function layers(prediction) {
  let sorted = { column: COLUMNS[5], down: true };
  let shown = [];
  const most = Math.max(...prediction.kernels.map((kernel) => kernel.ms), 0);
  const rows = prediction.kernels.map((kernel) => row(kernel, prediction, most));
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
  const statuses = filter("status", prediction.kernels.map((kernel) => kernel.status), draw);
  const found = make("p", { class: "found", "aria-live": "polite" });

  function matches(kernel) {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const said = [kernel.layer, kernel.label, kernel.kind, kernel.shape, ...kernel.nodes].join(" ").toLowerCase();
    return (!kinds.value || kernel.kind === kinds.value) && (!statuses.value || kernel.status === statuses.value)
      && words.every((word) => said.includes(word));
  }

  function draw() {
    const { column, down } = sorted;
    const sign = down ? -1 : 1;
    shown = prediction.kernels.filter(matches).sort((one, other) => {
      const [a, b] = [column.of(one), column.of(other)];
      return sign * (typeof a === "number" ? a - b : ORDER.compare(a, b)) || one.index - other.index;
    });
    body.replaceChildren(...shown.map((kernel) => rows[kernel.index]));
    heads.forEach((head, place) => {
      const own = COLUMNS[place] === column;
      head.setAttribute("aria-sort", own ? (down ? "descending" : "ascending") : "none");
    });
    const time = sum(shown.map((kernel) => kernel.ms));
    const share = percent(prediction.ms ? time / prediction.ms : 0);
    found.textContent = `${shown.length} of ${counted(prediction.kernels.length, "kernel")}, ${ms(time)} ms, ${share}`;
  }

  const save = make("button", { type: "button", id: "csv", onclick: () => download(prediction, shown) }, "CSV");
  const scroll = make("div", { class: "scroll tall" }, make("table", { class: "layers" }, make("thead", null, make("tr", null, ...heads)), body));
  const detail = make("div", { class: "detail", "aria-live": "polite" });
  looking.hear.push((kernel, from) => {
    rows.forEach((each, index) => each.classList.toggle("marked", kernel !== null && index === kernel.index));
    detail.replaceChildren(...(kernel === null ? [] : about(kernel, prediction)));
    if (kernel === null || from === "table") return;
    if (!shown.includes(kernel)) {
      search.value = kinds.value = statuses.value = "";
      draw();
    }
    centre(scroll, rows[kernel.index]);
  });
  draw();
  const tools = make("div", { class: "tools" }, search, kinds, statuses, save);
  const note = make("p", { class: "paper" }, "On paper: the first fifty rows.");
  return section("layers", "Layers", "", tools, found, scroll, note, detail);
}

function row(kernel, prediction, most) {
  const share = prediction.ms ? kernel.ms / prediction.ms : 0;
  const bar = make("div", { class: "fill" });
  bar.style.width = `${most ? (100 * kernel.ms) / most : 0}%`;
  const shown = {
    layer: [make("span", { class: "text" }, ...broken(kernel.layer)), copier(kernel.nodes[0] || kernel.layer, "the layer's name"),
      make("span", { class: "small" }, kernel.label)],
    kernel: broken(kernel.label),
    ms: [ms(kernel.ms)],
    share: [make("span", null, percent(share)), bar],
    status: [make("span", { class: `status ${kernel.status}` }, kernel.status)],
  };
  const cells = COLUMNS.map((column) => make("td", { class: column.kind, title: column.name === "layer" ? kernel.nodes.join("\n") : null },
    ...(shown[column.name] || [String(column.of(kernel))])));
  return make("tr", {
    class: kernel.status, "data-kernel": kernel.index, tabindex: 0, onclick: () => look(kernel, "table"),
    onkeydown: (event) => { if (event.key === "Enter" && event.target === event.currentTarget) look(kernel, "table"); },
  }, ...cells);
}

function filter(name, values, changed) {
  const options = [...new Set(values)].sort(ORDER.compare).map((value) => make("option", { value }, value));
  return make("select", { "aria-label": name, "data-filter": name, onchange: changed }, make("option", { value: "" }, `every ${name}`), ...options);
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
