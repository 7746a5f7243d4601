// Puts the page together, anew for each prediction that is looked at.

const root = document.getElementById("page");

function show(prediction) {
  Object.assign(looking, { at: prediction, kernel: null, hear: [] });
  const many = predictions.length > 1;
  const sections = [
    many ? overview(show) : "", raw.failed.length ? failures() : "",
    answer(prediction), icicle(prediction),
    make("div", { class: "pair" }, network(prediction), layers(prediction)),
    many ? compare() : "", missed(prediction), rests(prediction), remarks(prediction),
  ];
  root.replaceChildren(...sections.filter(Boolean));
  for (const row of root.querySelectorAll("tr[data-place]")) {
    row.classList.toggle("marked", Number(row.dataset.place) === prediction.place);
  }
}

if (predictions.length) show(predictions[0]);
else root.replaceChildren(make("h1", null, "Nothing could be predicted"), raw.failed.length ? failures() : "");
