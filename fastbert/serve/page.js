{
  const words = JSON.parse(document.getElementById("words").textContent);

  // ---- play: a form asks its view and shows the HTML that comes back ----
  const model = document.querySelector("[data-model]")?.dataset.model;
  let draws = 0; // every text that is generated takes another seed

  const say = (place, className, text) => {
    const line = document.createElement("p");
    line.className = className;
    line.textContent = text;
    place.replaceChildren(line);
  };

  async function show(form) {
    const fields = form.elements;
    const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
    const body = { model, language: words.language, texts: fields.lines ? lines(fields.lines.value) : [fields.text.value] };
    if (fields.second) body.second = fields.second.value;
    if (fields.joint) body.joint = fields.joint.checked;
    if (fields.candidates) body.candidates = fields.candidates.value;
    if (fields.tokens) body.length = Number(fields.tokens.value);
    if (form.dataset.view === "generate") body.seed = draws++;
    const place = form.nextElementSibling;
    if (form.dataset.view !== "generate" && !body.texts.some((text) => text.trim())) return say(place, "problem", words.empty);
    say(place, "soft", words.working);
    try {
      const answer = await fetch(`/play/${form.dataset.view}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
      if (!answer.ok) return say(place, "problem", (await answer.json()).error.message);
      place.innerHTML = await answer.text();
      if (place.querySelector("#maps")) drawAttention();
    } catch (error) {
      say(place, "problem", words.failed);
    }
  }

  for (const form of document.querySelectorAll("[data-view]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      show(form);
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }

  // ---- watch: the server sends the sections whenever the runs have gone on ----
  const live = document.querySelector("[data-events]");
  if (live) {
    const state = document.getElementById("state");
    const events = new EventSource(live.dataset.events);
    events.addEventListener("sections", (event) => {
      live.innerHTML = JSON.parse(event.data);
    });
    events.addEventListener("state", (event) => {
      state.textContent = JSON.parse(event.data);
    });
    events.addEventListener("error", () => {
      state.textContent = words.lost;
    });
  }

  // ---- the key of the server ----
  const keyForm = document.querySelector("[data-key]");
  keyForm?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify({ key: keyForm.elements.key.value });
    const answer = await fetch("/key", { method: "POST", headers, body });
    if (answer.ok) location.reload();
    else keyForm.querySelector(".problem").textContent = words.key_wrong;
  });
}
