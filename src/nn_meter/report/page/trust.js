// What fusion missed, and how far the answer can be trusted.

const PAIRS = 12; // of one reason, the longest
const REASONS = 8; // at first, those that cost the most

function missed(prediction) {
  const reasons = new Map();
  for (const each of prediction.unfused) {
    const consumer = each.to === null ? null : prediction.kernels[each.to];
    const pair = { ...each, most: consumer ? consumer.ms : null };
    if (!reasons.has(each.reason)) reasons.set(each.reason, []);
    reasons.get(each.reason).push(pair);
  }
  if (!reasons.size) return section("missed", "What fusion missed", "", make("p", null, "Nothing: no two neighbours are left."));
  const groups = [...reasons].map(([reason, pairs]) => {
    pairs.sort((a, b) => (b.least ?? b.most ?? 0) - (a.least ?? a.most ?? 0));
    const seconds = new Map(); // what reads several values is the second of several pairs, and counts once
    for (const { to, least, most } of pairs) {
      if (to === null) continue;
      const second = seconds.get(to) || { least: 0, most };
      seconds.set(to, { most, least: Math.min(second.least + (least || 0), most) });
    }
    const known = pairs.some((pair) => pair.least !== null);
    const total = (end) => sum([...seconds.values()].map((second) => second[end]));
    return { reason, pairs, least: known ? total("least") : null, most: seconds.size ? total("most") : null };
  }).sort((a, b) => (b.least ?? b.most ?? 0) - (a.least ?? a.most ?? 0));
  const rows = groups.map(({ reason, pairs, least, most }, place) => {
    const listed = pairs.slice(0, PAIRS).map((pair) => make("li", null, make("button", {
      type: "button", class: "link", onclick: () => pair.to !== null && look(prediction.kernels[pair.to], "missed"),
    }, `${pair.producer} → ${pair.consumer}`), ` ${ms(pair.least ?? pair.most)} ms`));
    if (pairs.length > PAIRS) listed.push(make("li", null, `${pairs.length - PAIRS} more`));
    return make("tr", { hidden: place >= REASONS ? "" : null },
      make("td", { class: "name" }, make("details", null, make("summary", null, reason), make("ul", null, ...listed))),
      make("td", { class: "n wide" }, String(pairs.length)), make("td", { class: "n" }, ms(least)), make("td", { class: "n" }, ms(most)));
  });
  const heads = [["why two neighbours did not become one", "name"], ["pairs", "n wide"], ["at least ms", "n"], ["at most ms", "n"]];
  const hint = "At least: passing the value on at the best speed of the device's memory, and one call (– where the predictor "
    + "does not know these). At most: all that the second kernel takes. Not all of it can be had: a convolution that reads a "
    + "convolution stays two.";
  const more = rows.length > REASONS ? make("button", { type: "button", class: "rest", onclick: (event) => {
    rows.forEach((row) => row.removeAttribute("hidden"));
    event.currentTarget.remove();
  } }, `${counted(rows.length - REASONS, "more reason")}`) : "";
  return section("missed", "What fusion missed", hint, table(heads, rows, {}), more);
}

const rate = (share) => (share === null ? "–" : percent(share));
const off = (errors) => `median error ${percent(errors.median)} on ${counted(errors.models, "model")}`
  + (errors.bias === null ? "" : `, ${errors.bias >= 0 ? "too high" : "too low"} by ${percent(Math.abs(errors.bias))} in the mean`);

function rests(prediction) {
  const { trust } = prediction;
  const family = trust.family ? text(trust.family.family) : "";
  const measured = trust.family ? texts(trust.family.names).join(", ") + (trust.family.models > trust.family.names.length ? " …" : "") : "";
  const facts = [
    ["this family", trust.family ? `${family} (${measured}): ${off(trust.family)}` : "nobody measured a family of this name with this predictor"],
    ["all models", trust.errors ? off(trust.errors) : "this predictor does not say"],
    ["interval", calibration(trust.calibrated)],
  ];
  const unsure = trust.kinds.some(([, , , , , , doubtful]) => doubtful);
  const rows = trust.kinds.map(([kind, kernels, latency, share, measured, error, doubtful, beyond]) => make("tr", { class: doubtful ? "doubtful" : null },
    make("td", { class: "name" }, text(kind)), make("td", { class: "n" }, String(kernels)), make("td", { class: "n wide" }, ms(latency)),
    make("td", { class: "n" }, percent(share)), make("td", { class: "n wide" }, measured ? String(measured) : "–"),
    make("td", { class: "n" }, rate(error)),
    ...(unsure ? [make("td", { class: "n" }, doubtful ? String(doubtful) : ""), make("td", { class: "n wide" }, beyond ? beyond.toFixed(1) : "")] : [])));
  const heads = [["kind", "name"], ["kernels", "n"], ["ms", "n wide"], ["share", "n"], ["measured", "n wide"], ["error", "n"], ...(unsure ? [["not predicted", "n"], ["beyond", "n wide"]] : [])];
  const hint = `Error: the median of single kernels held out from training.${unsure ? " Beyond: how many doublings the farthest kernel lies "
    + "outside of what was trained on." : ""}`;
  const notes = texts(trust.notes).map((note) => make("li", null, note));
  return section("trust", "How far to trust it", "",
    make("dl", null, ...facts.flatMap(([name, value]) => [make("dt", null, name), make("dd", null, value)])),
    make("p", { class: "hint" }, hint), table(heads, rows, {}), notes.length ? make("ul", { class: "hint" }, ...notes) : "");
}

function calibration(found) {
  if (!found) return "this predictor knows none";
  const level = `holds ${Math.round(100 * found.level)} % of such models`;
  if (found.models) return `${level}, by ${counted(found.models, "measured model")}`;
  return found.networks ? `${level}, by ${counted(found.networks, "generated network")} held out` : level;
}

function remarks(prediction) {
  const free = new Map();
  for (const { label, reason, count } of prediction.free) {
    free.set(reason, [...(free.get(reason) || []), `${label}${count > 1 ? ` ×${count}` : ""}`]);
  }
  const items = [...prediction.notes, ...[...free].map(([reason, labels]) => `free, ${reason}: ${labels.join(", ")}`)];
  const list = make("ul", null, ...items.map((note) => make("li", null, note)));
  return items.length ? section("notes", "Notes", "", list) : "";
}
