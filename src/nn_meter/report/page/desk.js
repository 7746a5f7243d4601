"use strict";
// Sends the model that is dropped or chosen, and goes to its page.

const find = (id) => document.getElementById(id);
const said = find("said");

async function predict(file) {
  const asked = new URLSearchParams({ name: file.name });
  for (const option of find("predictors").selectedOptions) asked.append("predictor", option.value);
  if (find("shape").value.trim()) asked.set("input_shape", find("shape").value.trim());
  said.className = "";
  said.textContent = `${file.name} is being predicted …`;
  try {
    const answer = await fetch(`/predict?${asked}`, { method: "POST", body: file });
    const told = await answer.json();
    if (!answer.ok) fail(told.error);
    else if (told.page) location.href = told.page;
    else fail(`${told.predictions.map((each) => `${each.latency_ms} ms by ${each.predictor}`).join(", ")}; ${told.not_kept}`);
  } catch (error) {
    fail(String(error));
  }
}

function fail(why) {
  said.className = "band bad";
  said.textContent = why;
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const [file] = find("file").files;
  if (file) predict(file);
  else fail("Choose a model first.");
});
for (const name of ["dragover", "dragleave", "drop"]) {
  find("drop").addEventListener(name, (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) predict(event.dataTransfer.files[0]);
  });
}
