"use strict";
// What all parts use: the facts as objects, elements, numbers as people read them, and which kernel is looked at.

const raw = JSON.parse(document.getElementById("data").textContent);
const text = (place) => raw.texts[place];
const texts = (places) => places.map(text);

const predictions = raw.predictions.map((each, place) => ({
  ...each,
  place,
  model: text(each.model),
  predictor: text(each.predictor),
  version: text(each.version),
  device: text(each.device),
  runtime: text(each.runtime),
  dtype: text(each.dtype),
  statistic: text(each.statistic),
  inputs: texts(each.inputs),
  notes: texts(each.notes),
  coverage: each.coverage.map(([status, ...rest]) => [text(status), ...rest]),
  kernels: each.kernels.map(kernelOf),
  folds: texts(each.folds),
  unfused: each.unfused.map(([reason, producer, consumer, from, to, least]) => ({
    reason: text(reason), producer: text(producer), consumer: text(consumer), from, to, least,
  })),
  free: each.free.map(([label, reason, count]) => ({ label: text(label), reason: text(reason), count })),
}));

function kernelOf(facts, index) {
  const [layer, label, kind, shape, status, ms, interval, bound, beyond, nodes, notes, levels, fold] = facts;
  return {
    index, ms, interval, beyond, fold,
    layer: text(layer), label: text(label), kind: text(kind), shape: text(shape), status: text(status),
    bound: text(bound), nodes: texts(nodes), notes: texts(notes), levels: texts(levels),
  };
}

// An element: `make("td", { class: "n", onclick: f }, "text", another)`. Names that models carry become text, never markup.
function make(tag, attributes, ...children) {
  const space = "http://www.w3.org/2000/svg";
  const element = SVG.has(tag) ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// A name that breaks where its parts meet, but not within 1.0, and within a part that is too long for a line at a capital or an underscore.
function broken(name) {
  return name.split(/(?<=\/)(?=[^./])|(?<=\.)(?=[^./\d])|(?<=\D\.)(?=\d)/).map((part) => make("span", { class: "part" },
    ...part.split(/(?<=_)(?=[^_])|(?<=[a-z])(?=[A-Z])/).flatMap((each, place) => (place ? [make("wbr"), each] : [each]))));
}
const SVG = new Set(["svg", "path", "circle"]);

function section(id, title, hint, ...content) {
  const head = make("h2", null, title);
  return make("section", { id, "aria-label": title }, head, hint ? make("p", { class: "hint" }, hint) : "", ...content);
}

function table(heads, rows, attributes) {
  const cells = heads.map(([name, kind]) => make("th", { scope: "col", class: kind }, name));
  const body = make("tbody", null, ...rows);
  return make("div", { class: "scroll" }, make("table", attributes || {}, make("thead", null, make("tr", null, ...cells)), body));
}

// Four significant digits, as the text report has them.
function ms(value) {
  if (value === null || value === undefined) return "–";
  if (!value) return "0";
  const digits = 3 - Math.floor(Math.log10(Math.abs(value)));
  return value.toFixed(Math.min(Math.max(digits, 0), 12));
}
const signed = (value) => (value > 0 ? "+" : "") + ms(value);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const times = (ratio) => `${ratio < 0.1 ? Number(ratio.toPrecision(2)) : ratio.toFixed(2)}×`;
const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const sum = (numbers) => numbers.reduce((total, each) => total + each, 0);
const range = (interval) => (interval ? `${ms(interval[0])} – ${ms(interval[1])}` : "–");

function scaled(value, unit) {
  for (const [factor, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= factor) return `${Number((value / factor).toPrecision(3))} ${prefix}${unit}`;
  }
  return `${Number(value.toPrecision(3))} ${unit}`.trim();
}

// Which prediction and which of its kernels is looked at; views that show kernels hear of a change.
const looking = { at: predictions[0], kernel: null, hear: [] };
function look(kernel, from) {
  looking.kernel = kernel;
  for (const heard of looking.hear) heard(kernel, from);
}

// Moves what is in a scrolling box to its middle, and leaves the page where it is.
function centre(box, element) {
  const inner = element.getBoundingClientRect();
  const outer = box.getBoundingClientRect();
  box.scrollTop += inner.top - outer.top - (outer.height - inner.height) / 2;
}

// The colour of a part of the time: by its root, so that small ones differ, too.
function heat(element, value, most) {
  element.style.setProperty("--heat", `${(100 * Math.sqrt(most ? Math.min(value / most, 1) : 0)).toFixed(1)}%`);
  return element;
}

async function copy(value, button) {
  try {
    await navigator.clipboard.writeText(value);
  } catch {
    const area = make("textarea", { "aria-hidden": "true" });
    area.value = value;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1200);
}

function copier(value, what) {
  return make("button", {
    class: "copy", type: "button", title: `copy ${what}`, "aria-label": `copy ${what}`,
    onclick(event) {
      event.stopPropagation();
      copy(value, event.currentTarget);
    },
  });
}
