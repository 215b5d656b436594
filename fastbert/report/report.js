"use strict";
// Draws the attention maps of the page's data block "maps".
function drawAttention() {
  const data = JSON.parse(document.getElementById("maps").textContent);
  const { tokens, layers, heads, words } = data;
  const raw = atob(data.weights);
  const size = tokens.length;
  const AVERAGE = -1; // stands for a head
  const svg = "http://www.w3.org/2000/svg";
  const one = (layer, head, i, j) => raw.charCodeAt(((layer * heads + head) * size + i) * size + j) / 255;

  function weight(layer, head, i, j) {
    if (head !== AVERAGE) return one(layer, head, i, j);
    let sum = 0;
    for (let h = 0; h < heads; h++) sum += one(layer, h, i, j);
    return sum / heads;
  }

  // small weights must be seen too: a square root, so that 4 % is a fifth as dark as all
  const shade = (value) => Math.sqrt(value);
  const accent = () => {
    const probe = document.createElement("span");
    probe.style.color = "var(--accent)";
    document.body.append(probe);
    const found = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
    probe.remove();
    return found;
  };

  function paint(canvas, layer, head, [r, g, b]) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(size, size);
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) {
        image.data.set([r, g, b, 255 * shade(weight(layer, head, i, j))], 4 * (i * size + j));
      }
    }
    context.putImageData(image, 0, 0);
  }

  const overview = document.getElementById("overview");
  const buttons = [];
  for (let layer = 0; layer < layers; layer++) {
    const row = document.createElement("div");
    row.className = "row";
    const name = document.createElement("span");
    name.textContent = `${words.layer} ${layer + 1}`;
    const maps = document.createElement("div");
    maps.className = "maps";
    for (let head = 0; head < heads; head++) {
      const button = document.createElement("button");
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = size;
      button.type = "button";
      button.title = `${words.layer} ${layer + 1}, ${words.head} ${head + 1}`;
      button.setAttribute("aria-label", button.title);
      button.addEventListener("click", () => choose(layer, head));
      button.append(canvas);
      maps.append(button);
      buttons.push({ button, canvas, layer, head });
    }
    row.append(name, maps);
    overview.append(row);
  }
  overview.classList.toggle("dense", heads > 4);
  const repaint = () => {
    const colour = accent();
    for (const { canvas, layer, head } of buttons) paint(canvas, layer, head, colour);
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  const CELL = 16;
  const label = Math.max(...tokens.map((t) => t.length)) * 6.4 + 10;

  function node(name, attributes, parent) {
    const made = document.createElementNS(svg, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent.append(made);
    return made;
  }

  function choose(layer, head) {
    for (const b of buttons) b.button.setAttribute("aria-pressed", String(b.layer === layer && b.head === head));
    document.getElementById("which").textContent = `${words.layer} ${layer + 1} · ${words.head} ${head + 1}`;
    const side = size * CELL;
    const drawing = document.createElementNS(svg, "svg");
    drawing.setAttribute("viewBox", `0 0 ${label + side + 2} ${label + side + 2}`);
    drawing.style.maxWidth = `${1.3 * (label + side)}px`; // letters no larger than the text around
    node("rect", { class: "ground", x: label, y: label, width: side, height: side }, drawing);
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) {
        const value = shade(weight(layer, head, i, j));
        if (value > 0.03) {
          const place = { class: "cell", x: label + j * CELL, y: label + i * CELL, width: CELL, height: CELL };
          node("rect", { ...place, "fill-opacity": value.toFixed(2) }, drawing);
        }
      }
    }
    const rows = tokens.map((token, i) => {
      const text = node("text", { x: label - 5, y: label + i * CELL + 12, "text-anchor": "end" }, drawing);
      text.textContent = token;
      return text;
    });
    const columns = tokens.map((token, j) => {
      const x = label + j * CELL + 11.5;
      const text = node("text", { x, y: label - 5, transform: `rotate(-90 ${x} ${label - 5})` }, drawing);
      text.textContent = token;
      return text;
    });
    const at = node("rect", { class: "at", width: CELL, height: CELL, visibility: "hidden" }, drawing);
    const reading = document.getElementById("reading");
    const percent = new Intl.NumberFormat(data.language, { style: "percent" });
    drawing.addEventListener("pointermove", (event) => {
      const box = drawing.getBoundingClientRect();
      const scale = (label + side + 2) / box.width;
      const j = Math.floor(((event.clientX - box.left) * scale - label) / CELL);
      const i = Math.floor(((event.clientY - box.top) * scale - label) / CELL);
      const inside = i >= 0 && j >= 0 && i < size && j < size;
      at.setAttribute("visibility", inside ? "visible" : "hidden");
      rows.forEach((text, n) => text.classList.toggle("off", inside && n !== i));
      columns.forEach((text, n) => text.classList.toggle("off", inside && n !== j));
      if (!inside) return;
      at.setAttribute("x", label + j * CELL);
      at.setAttribute("y", label + i * CELL);
      const values = { from: tokens[i], to: tokens[j], share: percent.format(weight(layer, head, i, j)) };
      reading.textContent = words.looks_at.replace(/\{(\w+)\}/g, (_, name) => values[name]);
    });
    document.getElementById("matrix").replaceChildren(drawing);
    reading.textContent = "";
  }

  repaint();
  choose(layers - 1, 0);
}
if (document.getElementById("maps")) drawAttention();
