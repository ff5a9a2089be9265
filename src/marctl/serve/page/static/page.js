// The page: sends what is on the paper to the server and shows the answers.

import { Asker } from "./ask.js";
import { Bars, percentOf } from "./bars.js";
import { EXAMPLES } from "./examples.js";
import { Paper } from "./paper.js";
import { Seen } from "./seen.js";

const SURE = 0.9; // below this probability the second label is shown too
const SPOKEN = 700; // milliseconds without a change before a screen reader gets the answer
const NO_EXPLANATION = 501;
const DIGEST = 12; // digits of the archive's SHA-256 that are shown

const at = (id) => document.getElementById(id);
const { model, labels } = await served();
const paper = new Paper(at("paper"));
const bars = new Bars(at("bars"), labels);
const seen = new Seen(at("seen"), at("overlay"), document.querySelector(".pixels"));
const picture = () => paper.picture();
const predictions = new Asker(
  `predictions/${encodeURIComponent(model)}?format=json&top_k=${bars.count}&show_input=true`,
  { slow: () => state("slow"), answered: showAnswer, failed: showTrouble },
);
const explanations = new Asker(`explanations/${encodeURIComponent(model)}`, {
  slow: () => note("The first explanation takes a while."),
  answered: showExplanation,
  failed: showNoExplanation,
});
let speaking = null;

introduce();
listen();

/** Return the model and its labels; the page can do nothing until it has them. */
async function served() {
  for (;;) {
    try {
      const [{ name, labels }] = (await (await fetch("page/served.json")).json()).models;
      return { model: name, labels };
    } catch {
      at("sure").textContent = "Waiting for the server.";
      await new Promise((done) => setTimeout(done, 2000));
    }
  }
}

function introduce() {
  if (labels.every((label) => /^\d$/.test(label))) {
    document.title = at("title").textContent = "Draw a digit";
  }
  at("model").textContent = model;
  const known = labels.filter((label) => Object.hasOwn(EXAMPLES, label));
  for (const label of known) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.setAttribute("aria-label", `Draw a ${label}`);
    button.addEventListener("click", () => paper.play(EXAMPLES[label]));
    at("example-buttons").append(button);
  }
  at("examples").hidden = known.length === 0;
}

function listen() {
  paper.addEventListener("change", () => { changed(); predictions.soon(picture); });
  paper.addEventListener("settle", settled);
  at("undo").addEventListener("click", () => paper.undo());
  at("clear").addEventListener("click", () => paper.clear());
  at("again").addEventListener("click", settled);
  at("why").addEventListener("click", () => { wanted(!isWanted()); });
  for (const [button, input] of [["choose", "chosen"], ["photograph", "photographed"]]) {
    at(button).addEventListener("click", () => at(input).click());
    at(input).addEventListener("change", () => {
      take(at(input).files);
      at(input).value = ""; // so that choosing the same file again is a change
    });
  }
  document.addEventListener("keydown", pressed);
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  document.addEventListener("dragover", (event) => { event.preventDefault(); dropping(true); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) dropping(false); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dropping(false);
    take(event.dataTransfer.files);
  });
  addEventListener("online", () => { if (document.body.dataset.state === "failed") settled(); });
}

function pressed(event) {
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") {
    event.preventDefault();
    paper.undo();
  } else if (event.key === "Escape") {
    paper.clear();
  }
}

function take(files) {
  if (files.length) paper.take(files[0]);
}

function dropping(is) {
  at("sheet").classList.toggle("dropping", is);
}

function changed() {
  at("undo").disabled = !paper.canGoBack;
  at("clear").disabled = paper.isEmpty;
  at("unseen").hidden = paper.isShown;
  at("unseen").textContent = paper.isShown ? "" : `${paper.file.name}\ncannot be shown here`;
  at("paper").setAttribute("aria-label", `Drawing area, ${contents()}`);
  if (document.body.dataset.state === "empty" && !paper.isEmpty) state("asking");
  explanations.stop();
  at("why").disabled = true;
}

function contents() {
  if (paper.isEmpty) return "empty";
  return paper.file ? `holds the picture ${paper.file.name}` : "holds a drawing";
}

function settled() {
  changed();
  if (!paper.isEmpty) {
    predictions.now(picture);
    return;
  }
  predictions.stop();
  state("empty");
  at("label").textContent = "?";
  at("sure").textContent = "Nothing to read yet.";
  at("took").textContent = "";
  bars.empty();
  seen.empty();
  legend(false);
  say("");
}

function state(name) {
  document.body.dataset.state = name;
  at("trouble").hidden = name !== "failed";
}

function showAnswer(answer, took) {
  state("answered");
  const [first, second] = answer.top_k;
  at("label").textContent = first.label;
  document.querySelector(".verdict").classList.toggle("long", first.label.length > 2);
  const words = [`${percentOf(first.probability)} sure`];
  if (first.probability < SURE && second) words.push(`or ${second.label}: ${percentOf(second.probability)}`);
  at("sure").replaceChildren(...words.map((text, index) => element(index ? "span" : "b", text)));
  bars.show(answer.top_k);
  const [height, width] = seen.show(answer.input);
  at("size").textContent = `Your picture at ${width} × ${height} pixels.`;
  const { name, version, sha256 } = answer.model;
  at("model").textContent = [`${name} ${version}`, sha256?.slice(0, DIGEST)].filter(Boolean).join(" · ");
  at("took").textContent = `answered in ${Math.round(took)} ms`;
  at("why").disabled = false;
  legend(false);
  if (isWanted() && !paper.isMoving) explanations.now(picture);
  say(`It is ${first.label}, ${words.join(", ")}.`);
}

function showTrouble({ message, hint, again }) {
  at("took").textContent = "";
  bars.empty();
  seen.empty();
  legend(false);
  write("message", message);
  write("advice", hint);
  at("again").hidden = again === null; // a refused picture would be refused again
  state("failed");
  say("");
}

/** Change only new text: a screen reader reads an alert each time it is written. */
function write(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

function isWanted() {
  return at("why").getAttribute("aria-pressed") === "true";
}

function wanted(is) {
  at("why").setAttribute("aria-pressed", String(is));
  legend(false);
  if (is) explanations.now(picture);
  else seen.plain();
}

function showExplanation({ label, attributions }) {
  seen.explain(attributions);
  at("for").textContent = label;
  legend(true);
}

function showNoExplanation({ status, message, hint }) {
  explanations.stop();
  wanted(false);
  at("why").hidden = status === NO_EXPLANATION;
  note([message, hint].filter(Boolean).join(". "));
}

function note(text) {
  at("note").textContent = text;
  at("note").hidden = text === "";
}

function legend(is) {
  at("legend").hidden = !is;
  if (!at("why").hidden) note(""); // else the note says why there is no button
}

/** Announce it once nothing has changed for a while, not each answer to a half-finished drawing. */
function say(text) {
  clearTimeout(speaking);
  speaking = setTimeout(() => { at("said").textContent = text; }, SPOKEN);
}

function element(name, text) {
  const one = document.createElement(name);
  one.textContent = text;
  return one;
}
