// The answer: how long, how sure, by whom, and whether to believe it.

const LEVELS = {
  good: "All of the time is predicted within what was trained on.",
  nearly: "Nearly all of the time is predicted within what was trained on:",
  careful: "Take this answer with care:",
  bad: "Do not trust this answer:",
};

function answer(prediction) {
  const { interval, trust } = prediction;
  const level = make("div", { class: `band ${trust.level}`, role: "status" }, make("strong", null, LEVELS[trust.level === "good" && trust.reasons.length ? "nearly" : trust.level]));
  if (trust.reasons.length) level.append(make("ul", null, ...texts(trust.reasons).map((reason) => make("li", null, reason))));
  return make("header", { id: "answer" },
    make("h1", null, prediction.model),
    make("p", { class: "total" },
      make("span", { class: "number" }, ms(prediction.ms)), " ms",
      interval ? make("span", { class: "between" }, `90 % of such models between ${ms(interval[0])} and ${ms(interval[1])} ms`) : ""),
    level,
    make("dl", null, ...facts(prediction).flatMap(([name, value]) => [make("dt", null, name), make("dd", null, value)])),
    shares(prediction));
}

function facts(prediction) {
  const { device, runtime, threads, dtype, statistic, inputs, size } = prediction;
  const found = [
    ["predictor", `${prediction.predictor} ${prediction.version}`],
    ["device", device],
    ["runtime", [runtime, threads ? counted(threads, "thread") : "", dtype].filter(Boolean).join(", ")],
    ["statistic", statistic],
    ["input", inputs.join(" + ")],
  ];
  if (size) {
    found.push(
      ["parameters", `${scaled(size.parameters, "")}, ${scaled(size.weight_bytes, "B")} of weights`],
      ["work", `${scaled(size.multiply_adds, "")} multiply-adds`],
      ["activations", `${scaled(size.peak_bytes, "B")} at most`]);
  }
  found.push(["kernels", `${prediction.kernels.length}, and ${sum(prediction.free.map((each) => each.count))} free operators`]);
  if (prediction.call_ms) found.push(["call", `${ms(prediction.call_ms)} ms outside all kernels`]);
  return found.filter(([, value]) => value);
}

// What the total rests on, as one bar.
function shares(prediction) {
  const bar = make("div", { class: "shares", role: "img", "aria-label": "what the total rests on" });
  const legend = make("p", { class: "legend" });
  for (const [status, kernels, , latency, share] of prediction.coverage) {
    const part = make("span", { class: status, title: `${status}: ${ms(latency)} ms` });
    part.style.flexGrow = share;
    if (share) bar.append(part);
    legend.append(make("span", { class: `status ${status}` }, status), ` ${percent(share)} (${counted(kernels, "kernel")}) `);
  }
  return make("div", null, bar, legend);
}

// Every prediction of the page, a row each; a click shows it.
function overview(show) {
  const most = Math.max(...predictions.map((each) => (each.interval ? each.interval[1] : each.ms)));
  const rows = predictions.map((each) => {
    const bar = make("div", { class: "whisker" });
    const fill = make("div", { class: "fill" });
    fill.style.width = `${(100 * each.ms) / (most || 1)}%`;
    bar.append(fill);
    if (each.interval) {
      const span = make("div", { class: "span" });
      span.style.left = `${(100 * each.interval[0]) / (most || 1)}%`;
      span.style.width = `${(100 * (each.interval[1] - each.interval[0])) / (most || 1)}%`;
      bar.append(span);
    }
    const name = make("button", { type: "button", class: "link", onclick: () => show(each) }, ...broken(each.model));
    return make("tr", { "data-place": each.place, onclick: () => show(each) },
      make("td", { class: "name" }, name), make("td", null, ...broken(`${each.predictor} ${each.version}`)),
      make("td", { class: "wide" }, each.device), make("td", { class: "n" }, ms(each.ms)),
      make("td", { class: "n wide" }, range(each.interval)), make("td", { class: "bar wide" }, bar),
      make("td", null, make("span", { class: `mark ${each.trust.level}` }, { good: "sure", careful: "with care", bad: "no" }[each.trust.level])));
  });
  const heads = [["model"], ["predictor"], ["device", "wide"], ["ms", "n"], ["90 % interval", "n wide"], ["", "wide"], ["trust"]];
  return section("overview", "All predictions", "A click shows one below.", table(heads, rows, { class: "choose" }));
}

function failures() {
  const items = raw.failed.map(([model, error]) => make("li", null, make("strong", null, model), `: ${error}`));
  return section("failed", "Models without an answer", "", make("ul", null, ...items));
}
