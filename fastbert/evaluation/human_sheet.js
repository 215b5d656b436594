"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const words = data.words;
  const $ = (id) => document.getElementById(id);
  const say = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const place = "fastbert-sheet-" + data.sheet;

  let state = { rater: "", at: 0, answers: {} };
  let kept = true;
  try {
    const stored = JSON.parse(localStorage.getItem(place));
    if (stored && stored.answers) state = { rater: stored.rater || "", at: stored.at || 0, answers: stored.answers };
    localStorage.setItem(place, JSON.stringify(state));
  } catch {
    kept = false; // private windows and some settings forbid it
  }
  state.at = Math.min(Math.max(0, Math.trunc(state.at) || 0), data.items.length - 1);
  let now = 0; // criterion that the digit keys rate

  const keep = () => {
    if (kept) localStorage.setItem(place, JSON.stringify(state));
  };
  const item = () => data.items[state.at];
  const ratings = (id) => state.answers[id] || (state.answers[id] = {});
  const whole = (id) => state.answers[id] && data.criteria.every((c) => c.name in state.answers[id]);
  const left = () => data.items.filter((i) => !whole(i.id)).length;
  const tell = (text) => { $("message").textContent = text; };

  const fields = data.criteria.map((criterion, index) => {
    const field = document.createElement("fieldset");
    const legend = document.createElement("legend");
    const label = document.createElement("strong");
    const question = document.createElement("span");
    label.textContent = criterion.label;
    question.textContent = criterion.question;
    legend.append(label, question);
    const scale = document.createElement("div");
    scale.className = "scale";
    const end = (text) => {
      const span = document.createElement("span");
      span.className = "end";
      span.textContent = text;
      return span;
    };
    scale.append(end(words.lowest));
    const inputs = [];
    for (let value = 1; value <= data.points; value++) {
      const choice = document.createElement("label");
      const input = document.createElement("input");
      const shown = document.createElement("span");
      Object.assign(input, { type: "radio", name: criterion.name, value: String(value) });
      shown.textContent = String(value);
      input.addEventListener("change", () => rate(index, value, false));
      input.addEventListener("focus", () => look(index));
      choice.append(input, shown);
      scale.append(choice);
      inputs.push(input);
    }
    scale.append(end(words.highest));
    field.append(legend, scale);
    $("form").append(field);
    return { field, inputs };
  });

  function look(index) {
    now = index;
    fields.forEach(({ field }, i) => field.classList.toggle("now", i === index));
  }

  function rate(index, value, advance) {
    ratings(item().id)[data.criteria[index].name] = value;
    fields[index].inputs[value - 1].checked = true;
    keep();
    count();
    tell(left() === 0 ? words.finished : "");
    if (advance && index + 1 < fields.length) focus(index + 1);
    else look(index);
  }

  function focus(index) {
    look(index);
    const { inputs } = fields[index];
    (inputs.find((input) => input.checked) || inputs[0]).focus();
  }

  function count() {
    const done = data.items.length - left();
    $("rated").textContent = say(words.rated, { done, all: data.items.length });
    $("done").style.width = (100 * done) / data.items.length + "%";
  }

  function show() {
    const { id, source, text } = item();
    $("place").textContent = say(words.place, { n: state.at + 1, all: data.items.length });
    $("source-part").hidden = source === null;
    $("source").textContent = source === null ? "" : source;
    $("text").textContent = text;
    const given = state.answers[id] || {};
    fields.forEach(({ inputs }, index) => {
      inputs.forEach((input, i) => { input.checked = given[data.criteria[index].name] === i + 1; });
    });
    $("comment").value = given.comment || "";
    $("previous").disabled = state.at === 0;
    $("next").disabled = state.at === data.items.length - 1;
    $("start").hidden = state.at > 0 && state.rater !== "";
    const first = data.criteria.findIndex((c) => !(c.name in given));
    look(first < 0 ? 0 : first);
    count();
    keep();
  }

  function go(step) {
    const to = state.at + step;
    if (to < 0 || to >= data.items.length) return;
    state.at = to;
    tell("");
    show();
    focus(now);
  }

  function save() {
    if (!state.rater.trim()) {
      $("start").hidden = false;
      $("name").focus();
      tell(words.need_name);
      return;
    }
    const answers = {};
    for (const { id } of data.items) {
      if (state.answers[id] && Object.keys(state.answers[id]).length) answers[id] = state.answers[id];
    }
    const rater = state.rater.trim();
    const content = { format: "fastbert answers 1", sheet: data.sheet, rater, saved: new Date().toISOString(), answers };
    const file = `answers-${data.sheet}-${rater.replace(/[^\p{L}\p{N}]+/gu, "_")}.json`;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1) + "\n"], { type: "application/json" }));
    link.download = file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    tell(left() ? say(words.unfinished, { file, left: left() }) : say(words.saved, { file }));
  }

  async function load(file) {
    let found;
    try {
      found = JSON.parse(await file.text());
    } catch {
      found = null;
    }
    if (!found || typeof found.answers !== "object") return tell(words.not_answers);
    if (found.sheet !== data.sheet) return tell(words.other_sheet);
    state = { rater: String(found.rater || ""), at: state.at, answers: found.answers };
    $("name").value = state.rater;
    show();
    tell(words.loaded);
  }

  document.addEventListener("keydown", (event) => {
    const writing = event.target.matches("textarea, input[type=text]");
    if (event.ctrlKey || event.metaKey || event.altKey || writing) return;
    const digit = Number(event.key);
    if (event.key !== " " && digit >= 1 && digit <= data.points) {
      event.preventDefault();
      rate(now, digit, true);
    } else if (event.key === "Enter" && !event.target.matches("button, input[type=file]")) {
      event.preventDefault();
      go(event.shiftKey ? -1 : 1);
    }
  });
  $("form").addEventListener("submit", (event) => event.preventDefault());
  $("previous").addEventListener("click", () => go(-1));
  $("next").addEventListener("click", () => go(1));
  $("save").addEventListener("click", save);
  $("file").addEventListener("change", (event) => event.target.files[0] && load(event.target.files[0]));
  $("name").addEventListener("input", (event) => { state.rater = event.target.value; keep(); });
  $("comment").addEventListener("input", (event) => {
    if (event.target.value) ratings(item().id).comment = event.target.value;
    else delete ratings(item().id).comment;
    keep();
  });
  $("name").value = state.rater;
  $("keys").textContent = say(words.keys, { points: data.points });
  show();
  if (!kept) tell(words.not_kept);
  if (left() === 0) tell(words.finished);
})();
