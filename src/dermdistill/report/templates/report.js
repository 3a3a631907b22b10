"use strict";
(() => {
  const clean = (text) => text.replace(/\s+/g, " ").trim();
  const shown = (cell) => cell ? clean((cell.querySelector(":scope > .sort") || cell).textContent) : "";
  const NUMBER = /^[<>\u2264\u2265]?\s*([+\-\u2212]?)((?:\d[\d,]*)?\.?\d+(?:e[+-]?\d+)?)(?![\w.])(?:\s*(kB|MB|GB)\b)?/i;
  const SCALE = { kb: 1e3, mb: 1e6, gb: 1e9 };

  // The number that a cell begins with; NaN for words such as "too few (7)", which stay last either way.
  function numberOf(text) {
    const found = NUMBER.exec(text);
    if (!found) return NaN;
    const size = Number(found[2].replaceAll(",", "")) * (SCALE[(found[3] || "").toLowerCase()] || 1);
    return found[1] && found[1] !== "+" || /\bsmaller$/.test(text) ? -size : size;
  }

  function order(rows, column, direction) {
    const keys = new Map(rows.map((row) => [row, shown(row.cells[column])]));
    const cells = rows.map((row) => row.cells[column]).filter(Boolean);
    const titles = cells.every((cell) => cell.tagName === "TH") && !cells.every((cell) => !isNaN(numberOf(shown(cell))));
    const numbers = !titles && cells.some((cell) => !isNaN(numberOf(shown(cell))));
    return [...rows].sort((a, b) => {
      if (!numbers) return direction * keys.get(a).localeCompare(keys.get(b), "en", { numeric: true });
      const [x, y] = [numberOf(keys.get(a)), numberOf(keys.get(b))];
      return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : direction * (x - y);
    });
  }

  // Clicks go round: rising, falling, as printed. Each body is sorted by itself, its group title stays on top.
  function sortable(table) {
    const heads = table.tHead && table.tHead.rows.length === 1 ? [...table.tHead.rows[0].cells] : [];
    const bodies = [...table.tBodies].map((body) => [body, [...body.rows].filter((row) => !row.matches(".group"))]);
    const spans = bodies.some(([, rows]) => rows.some((row) => [...row.cells].some((c) => c.colSpan > 1 || c.rowSpan > 1)));
    if (spans || !bodies.some(([, rows]) => rows.length > 1)) return;
    heads.forEach((head, column) => {
      if (head.colSpan > 1) return;
      const button = Object.assign(document.createElement("button"), { type: "button", className: "sort" });
      button.append(...head.childNodes);
      if (!clean(button.textContent)) button.setAttribute("aria-label", "Sort by the first column");
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort") || "none"];
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (next !== "none") head.setAttribute("aria-sort", next);
        const direction = next === "descending" ? -1 : 1;
        bodies.forEach(([body, rows]) => body.append(...(next === "none" ? rows : order(rows, column, direction))));
      });
    });
  }

  function save(name, type, text) {
    const address = URL.createObjectURL(new Blob([text], { type }));
    const link = Object.assign(document.createElement("a"), { href: address, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  // A text that a spreadsheet would take for a formula gets a leading apostrophe; numbers may begin with a sign.
  function field(text) {
    const safe = /^[=@]|^[+\-](?![\d.])./.test(text) ? `'${text}` : text;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }
  const csv = (table) => [...table.rows].map((row) => [...row.cells].map((cell) => field(shown(cell))).join(",")).join("\r\n");

  // Alone, a figure has neither the page's ink nor its variables: they become the light page's colours.
  function svg(figure) {
    const copy = figure.cloneNode(true);
    const light = document.styleSheets[0].cssRules[0].style;
    const box = figure.viewBox.baseVal;
    copy.removeAttribute("style");
    const facts = { width: box.width, height: box.height, "font-family": "DejaVu Sans, Verdana, sans-serif" };
    Object.entries(facts).forEach(([key, value]) => copy.setAttribute(key, value));
    const text = new XMLSerializer().serializeToString(copy).replace(/var\((--[\w-]+)\)/g, (all, key) => light.getPropertyValue(key).trim() || all);
    return text.replaceAll("currentColor", light.getPropertyValue("--ink").trim());
  }

  function nameOf(part, words, ending) {
    const slug = (text) => clean(text).toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60);
    const place = part.closest("section, header");
    return [document.body.dataset.name, place && place.id, words].map((text) => slug(text || "")).filter(Boolean).join("-") + ending;
  }

  function offer(place, label, title, make) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "save", textContent: label, title });
    button.setAttribute("aria-label", title);
    button.addEventListener("click", make);
    place.append(" ", button);
  }

  document.querySelectorAll("table").forEach((table) => {
    const words = table.caption ? clean(table.caption.textContent) : "table";
    sortable(table);
    offer(table.caption || table.createCaption(), "CSV", `Save as CSV: ${words}`, () => save(nameOf(table, words, ".csv"), "text/csv", "\ufeff" + csv(table) + "\r\n"));
  });
  document.querySelectorAll("figure").forEach((figure) => figure.querySelectorAll("svg").forEach((drawn) => {
    const words = drawn.getAttribute("aria-label") || "figure";
    offer(figure.querySelector("figcaption") || figure.appendChild(document.createElement("figcaption")), "SVG", `Save as SVG: ${words}`, () => save(nameOf(figure, words, ".svg"), "image/svg+xml", svg(drawn)));
  }));

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((item) => { item.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((item) => { item.open = false; }));
})();
