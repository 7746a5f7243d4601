// The network as the runtime executes it, from top to bottom: rails are values that flow from kernel to kernel, a box is a
// kernel, the operators that were fused into one stand in one outline, the colour is the time.

const ROW = 40;
const RAILS = 150; // room for rails, in pixels, or a sixth of the window; where many values live at once they come closer

// The rail on which each kernel stands: that of a value which it is the last to read, else a free one.
function railsOf(prediction) {
  const edges = new Map();
  for (const { from, to } of prediction.unfused) {
    if (from !== null && to !== null && from < to) edges.set(`${from} ${to}`, [from, to]);
  }
  const into = prediction.kernels.map(() => []);
  const last = prediction.kernels.map((kernel) => kernel.index);
  for (const [from, to] of edges.values()) {
    into[to].push(from);
    last[from] = Math.max(last[from], to);
  }
  const held = []; // rail to the kernel whose value is on it
  const rail = prediction.kernels.map((kernel) => {
    const place = kernel.index;
    for (let at = 0; at < held.length; at += 1) if (held[at] !== null && last[held[at]] < place) held[at] = null;
    const ending = held.findIndex((value) => value !== null && last[value] === place && into[place].includes(value));
    let own = ending;
    if (own < 0) own = held.indexOf(null);
    if (own < 0) own = held.push(null) - 1;
    for (let at = 0; at < held.length; at += 1) if (held[at] !== null && last[held[at]] <= place) held[at] = null;
    held[own] = last[place] > place ? place : null;
    return own;
  });
  return { rail, edges: [...edges.values()], count: Math.max(held.length, 1) };
}

function network(prediction) {
  const { rail, edges, count } = railsOf(prediction);
  const gap = Math.min(18, Math.min(RAILS, innerWidth / 6) / count);
  const width = gap * (count + 1);
  const x = (place) => gap * (rail[place] + 1);
  const y = (place) => ROW * place + ROW / 2;
  const most = Math.max(...prediction.kernels.map((kernel) => kernel.ms), 0);
  const lines = edges.map(([from, to]) => {
    const turn = Math.max(y(to) - ROW * 0.8, y(from));
    const d = rail[from] === rail[to]
      ? `M${x(from)},${y(from)}V${y(to)}`
      : `M${x(from)},${y(from)}V${turn}C${x(from)},${y(to) - ROW * 0.3} ${x(to)},${turn + ROW * 0.3} ${x(to)},${y(to)}`;
    return make("path", { d });
  });
  const dots = prediction.kernels.map((kernel) =>
    heat(make("circle", { cx: x(kernel.index), cy: y(kernel.index), r: 4.5 }), kernel.ms, most));
  const height = ROW * prediction.kernels.length;
  const drawing = make("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, ...lines, ...dots);
  const boxes = prediction.kernels.map((kernel) => executed(kernel, prediction, most, width));
  const picture = make("div", { class: "executed" }, drawing, ...boxes);
  const scroll = make("div", { class: "scroll tall", tabindex: 0, "aria-label": "network as executed" }, picture);
  looking.hear.push((kernel, from) => {
    boxes.forEach((element, index) => element.classList.toggle("marked", kernel !== null && index === kernel.index));
    if (kernel !== null && from !== "network") centre(scroll, boxes[kernel.index]);
  });
  const hint = "From top to bottom as the runtime runs it. Operators in one outline were fused; the stronger the colour, the longer.";
  return section("executed", "As executed", hint, scroll);
}

function executed(kernel, prediction, most, left) {
  const parts = kernel.label.replace(/ \(.*\)$/, "").split("-");
  const fused = parts.length > 1 || kernel.nodes.length > 1;
  const chips = make("span", { class: `operators${fused ? " fused" : ""}` }, ...parts.map((part) => make("span", null, part)));
  const share = prediction.ms ? kernel.ms / prediction.ms : 0;
  const box = make("button", {
    type: "button", class: `kernel ${kernel.status}`, "data-kernel": kernel.index, tabindex: -1,
    title: `${kernel.nodes.join("\n") || kernel.layer}\n${kernel.shape}\n${ms(kernel.ms)} ms, ${percent(share)}, ${kernel.status}`,
    onclick: () => look(kernel, "network"),
  }, make("span", { class: "what" }, chips, make("span", { class: "layer" }, make("bdi", null, kernel.nodes.length ? kernel.layer : "inserted"))), make("span", { class: "n" }, ms(kernel.ms)));
  box.style.marginLeft = `${left}px`;
  return heat(box, kernel.ms, most);
}
