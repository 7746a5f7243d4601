// Where the time goes, module by module: the width of a box is its time, those below it are what it consists of.

const LEAST_SHARE = 0.0015; // narrower boxes could not be seen
const HEIGHT = 26;

function treeOf(prediction, by) {
  const root = node(prediction.model, null, "root");
  for (const kernel of prediction.kernels) {
    let at = root;
    at.ms += kernel.ms;
    for (const level of by === "kind" ? [kernel.kind] : kernel.levels) {
      if (!at.children.has(level)) at.children.set(level, node(level, at, "module"));
      at = at.children.get(level);
      at.ms += kernel.ms;
    }
    const leaf = node(kernel.label, at, "leaf");
    Object.assign(leaf, { ms: kernel.ms, kernel });
    at.children.set(`kernel ${kernel.index}`, leaf);
  }
  if (prediction.call_ms) {
    const call = node("call of the runtime", root, "module");
    call.ms = prediction.call_ms;
    root.ms += call.ms;
    root.children.set("call of the runtime, outside all kernels", call);
  }
  return root;
}

function node(name, parent, type) {
  return { name, parent, type, ms: 0, children: new Map(), kernel: null };
}

function pathOf(node) {
  return node.parent && node.parent.parent ? `${pathOf(node.parent)}.${node.name}` : node.name;
}

function icicle(prediction) {
  const chart = make("div", { class: "icicle" });
  const way = make("p", { class: "way" });
  const named = prediction.kernels.some((kernel) => kernel.levels.length);
  let by = named ? "module" : "kind";
  let focus = treeOf(prediction, by);
  let marked = looking.kernel;

  function draw() {
    const most = Math.max(...prediction.kernels.map((kernel) => kernel.ms), 0);
    const boxes = [];
    let depth = 0;
    const place = (at, left, width, level) => {
      if (width < LEAST_SHARE) return;
      depth = Math.max(depth, level);
      boxes.push(box(at, left, width, level, most));
      let x = left;
      for (const child of at.children.values()) {
        const part = at.ms ? (width * child.ms) / at.ms : 0;
        place(child, x, part, level + 1);
        x += part;
      }
    };
    place(focus, 0, 1, 0);
    chart.replaceChildren(...boxes);
    chart.style.height = `${(depth + 1) * HEIGHT}px`;
    const outer = focus.parent;
    way.replaceChildren(
      outer ? make("button", { type: "button", onclick: () => go(outer) }, "↑ out") : "",
      ` ${pathOf(focus)}: ${ms(focus.ms)} ms, ${percent(prediction.ms ? focus.ms / prediction.ms : 0)} of the total`);
  }

  function box(at, left, width, level, most) {
    const share = prediction.ms ? at.ms / prediction.ms : 0;
    const name = at.kernel ? `${at.kernel.layer}\n${at.kernel.label}` : pathOf(at);
    const element = make("button", {
      type: "button", class: at.type, title: `${name}\n${ms(at.ms)} ms, ${percent(share)}`,
      tabindex: level < 2 ? 0 : -1, "data-kernel": at.kernel ? at.kernel.index : null,
      onclick: () => (at.kernel ? look(at.kernel, "icicle") : go(at === focus && at.parent ? at.parent : at)),
    }, make("span", null, at.name));
    Object.assign(element.style, { left: `${100 * left}%`, width: `${100 * width}%`, top: `${level * HEIGHT}px` });
    if (at.kernel) heat(element, at.ms, most);
    if (at.kernel && at.kernel === marked) element.classList.add("marked");
    return element;
  }

  function go(to) {
    focus = to;
    draw();
  }

  looking.hear.push((kernel) => {
    marked = kernel;
    for (const each of chart.querySelectorAll("[data-kernel]")) {
      each.classList.toggle("marked", kernel !== null && Number(each.dataset.kernel) === kernel.index);
    }
  });
  const choice = make("select", { id: "icicle-by", "aria-label": "group by", onchange(event) {
    by = event.target.value;
    go(treeOf(prediction, by));
  } }, ...["module", "kind"].map((each) => make("option", { value: each, selected: each === by ? "" : null }, `by ${each}`)));
  draw();
  const hint = "Width is time. A click on a module looks into it, a click on a kernel shows it everywhere.";
  return section("time", "Where the time goes", hint, make("div", { class: "tools" }, choice, way), chart);
}
