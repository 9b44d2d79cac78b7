"use strict";
// The samples are text: they enter the page as text nodes and never as markup.
const rows = JSON.parse(document.getElementById("samples-data").textContent);
const form = document.getElementById("filters");
const list = document.getElementById("samples-list");
const count = document.getElementById("samples-count");
const AT_ONCE = 10;
let shown = AT_ONCE;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function choices(select, values) {
  for (const value of new Set(values)) {
    const option = element("option", "", value);
    option.value = value;
    select.append(option);
  }
}

function matches(row) {
  const [task, stage, verdict] = ["task", "stage", "verdict"].map((name) => form.elements[name].value);
  if (task && row.task !== task) return false;
  const answers = row.answers.filter((answer) => !stage || answer.stage === stage);
  return answers.some((answer) => !verdict || answer.verdict === verdict || answer.change === verdict);
}

function sample(row) {
  const article = element("article", "sample");
  article.append(element("h4", "", row.task + " · " + row.id), element("pre", "prompt", row.text));
  const reference = row.is_short ? element("p", "reference", "Reference answer: ") : element("details");
  if (row.is_short) reference.append(element("code", "", row.reference));
  else reference.append(element("summary", "", "Reference answer"), element("pre", "", row.reference));
  const answers = element("div", "answers");
  for (const answer of row.answers) {
    const box = element("div", "answer");
    const head = element("p", "who");
    head.append(element("strong", "", answer.stage), " ", element("span", "verdict " + answer.verdict, answer.verdict));
    if (answer.change) head.append(" ", element("span", "verdict " + answer.change, answer.change + " by this stage"));
    box.append(head, element("pre", "", answer.text));
    answers.append(box);
  }
  article.append(answers, reference);
  return article;
}

function draw() {
  const found = rows.filter(matches);
  list.replaceChildren(...found.slice(0, shown).map(sample));
  count.textContent = found.length + " of " + rows.length + " prompts";
  if (found.length > shown) {
    const more = element("button", "", "Show " + Math.min(AT_ONCE, found.length - shown) + " more");
    more.type = "button";
    more.addEventListener("click", () => { shown += AT_ONCE; draw(); });
    list.append(more);
  }
}

choices(form.elements.task, rows.map((row) => row.task));
choices(form.elements.stage, rows.flatMap((row) => row.answers.map((answer) => answer.stage)));
form.hidden = false;
form.addEventListener("input", () => { shown = AT_ONCE; draw(); });
form.addEventListener("submit", (event) => event.preventDefault());
draw();
