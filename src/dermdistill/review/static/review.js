"use strict";
document.documentElement.classList.add("js");

// Everything here helps; the forms work without it.
document.addEventListener("DOMContentLoaded", () => {
  const find = (name) => document.querySelector(`[data-${name}]`);
  const form = document.querySelector("form[data-draft]");

  document.querySelectorAll("[data-link]").forEach((field) => field.addEventListener("focus", () => field.select()));
  if (!form) return;

  const status = find("status");
  const say = (text) => { if (status.textContent !== text) status.textContent = text; };
  const body = () => new URLSearchParams(new FormData(form));
  const pause = (seconds) => new Promise((resolve) => { setTimeout(resolve, 1000 * seconds); });

  // Drafts: one message at a time, the latest state last; on trouble once more until it is kept.
  let message = null;
  let leaving = false;
  let kept = body().toString();
  let timer = 0;

  async function keep() {
    clearTimeout(timer);
    timer = 0;
    const state = body().toString();
    if (message || leaving || state === kept) return;
    message = told(state);
    await message;
    message = null;
    if (body().toString() !== kept && !timer) later();
  }

  async function told(state) {
    try {
      const signal = AbortSignal.timeout(10000);
      const answer = await fetch(form.dataset.draft, { method: "POST", body: new URLSearchParams(state), keepalive: state.length < 60000, signal });
      if (answer.ok) {
        kept = state;
        say("Draft kept.");
      } else if (answer.status === 429 || answer.status >= 500) {
        throw new Error("later");
      } else {
        kept = state;
        say("This page is no longer current. Load it again.");
      }
    } catch {
      if (!leaving) say("The server does not answer. What you typed is still here; trying again.");
      later(3000);
    }
  }

  function later(milliseconds = 600) {
    clearTimeout(timer);
    timer = setTimeout(keep, milliseconds);
  }

  const typed = () => {
    say("");
    later();
  };
  ["input", "change"].forEach((kind) => form.addEventListener(kind, typed));
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") keep(); });

  // Sending: while the server is away, the page stays and tries again.
  async function send() {
    if (leaving) return;
    leaving = true;
    clearTimeout(timer);
    await message; // a draft on its way must not come after the answer
    const state = body();
    say("Sending.");
    for (;;) {
      try {
        const answer = await fetch(form.action, { method: "POST", body: state, redirect: "manual" });
        if (answer.type === "opaqueredirect") {
          location.assign("/item");
          return;
        }
        if (answer.status !== 429 && answer.status < 500) break;
      } catch { /* no connection */ }
      say("The server does not answer. Your answer is kept on this page; trying again.");
      await pause(3);
    }
    form.submit(); // refused for a reason that only its page can tell
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });

  // A page from the browser's memory may be of a step that is over.
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // Keys: digits choose and move on, Enter sends.
  const questions = [...form.querySelectorAll("fieldset[data-question]")];
  const radios = (question) => [...question.querySelectorAll("input[type=radio]")];
  const chosen = (question) => radios(question).find((radio) => radio.checked);
  const enter = (question) => { (chosen(question) || radios(question)[0]).focus(); };

  function digit(number) {
    const open = questions.find((question) => !chosen(question)) || questions.at(-1);
    const current = questions.find((question) => question.contains(document.activeElement)) || open;
    const radio = radios(current)[number - 1];
    if (!radio) return;
    radio.checked = true;
    radio.dispatchEvent(new Event("change", { bubbles: true }));
    const next = questions[questions.indexOf(current) + 1];
    if (next) enter(next);
    else radio.focus();
  }

  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (event.defaultPrevented || event.altKey || event.metaKey || event.isComposing) return;
    const text = target.matches("textarea, input[type=text]");
    if (event.key === "Enter" && (text ? event.ctrlKey : !target.matches("button, a"))) {
      event.preventDefault();
      form.requestSubmit();
    } else if (!text && !event.ctrlKey && /^[1-9]$/.test(event.key)) {
      event.preventDefault();
      digit(Number(event.key));
    }
  });

  // With a keyboard at hand, the first question waits for a digit; on a phone nothing may jump.
  if (matchMedia("(pointer: fine)").matches) {
    const wrong = form.querySelector("fieldset[aria-describedby]");
    const first = wrong || questions.find((question) => !chosen(question)) || questions[0];
    (chosen(first) || radios(first)[0]).focus({ preventScroll: !wrong });
  }

  const slider = find("slider");
  if (!slider) return;
  const heat = find("heat");
  const layers = find("layers");
  const blend = () => { heat.style.opacity = slider.value / 100; };
  slider.addEventListener("input", blend);
  blend();

  // Drawing: polygons in shares of the picture's width and height.
  const canvas = find("canvas");
  const pen = canvas.getContext("2d");
  const field = find("region");
  const [draw, undo, clear, help, count] = ["draw", "undo", "clear", "draw-help", "regions"].map(find);
  const photo = layers.querySelector(".photo");
  const MOST = { points: Number(form.dataset.mostPoints), polygons: Number(form.dataset.mostPolygons) };
  const NEAR = .006;
  const STEP = .02;
  const share = (value) => Math.round(1e4 * Math.min(1, Math.max(0, value))) / 1e4;
  let polygons = [];
  try { polygons = JSON.parse(field.value || "[]"); } catch { field.value = ""; }
  let line = [];
  let pointer = null;
  let cross = [.5, .5];
  let byKeys = false;

  // The picture as it stands in its frame, without the bars beside it.
  function place() {
    const frame = photo.getBoundingClientRect();
    const outer = layers.getBoundingClientRect();
    if (!photo.naturalWidth || !frame.width) return;
    const scale = Math.min(frame.width / photo.naturalWidth, frame.height / photo.naturalHeight);
    const [width, height] = [photo.naturalWidth * scale, photo.naturalHeight * scale];
    const dense = window.devicePixelRatio || 1;
    canvas.style.left = `${frame.left - outer.left + (frame.width - width) / 2}px`;
    canvas.style.top = `${frame.top - outer.top + (frame.height - height) / 2}px`;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
    paint();
  }

  function trace(points, closed) {
    if (!points.length) return;
    pen.beginPath();
    points.forEach(([x, y], index) => pen[index ? "lineTo" : "moveTo"](x * canvas.width, y * canvas.height));
    if (closed) {
      pen.closePath();
      pen.fill();
    }
    const dense = window.devicePixelRatio || 1;
    [["rgba(0, 0, 0, .75)", 5], ["#7ff5e1", 2.5]].forEach(([colour, width]) => {
      pen.strokeStyle = colour;
      pen.lineWidth = width * dense;
      pen.stroke();
    });
  }

  function paint() {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.lineJoin = pen.lineCap = "round";
    pen.fillStyle = "rgba(127, 245, 225, .16)";
    polygons.forEach((polygon) => trace(polygon, true));
    trace(line, false);
    if (byKeys && drawing()) {
      const [x, y] = cross;
      const arm = .02 * canvas.width;
      const [dx, dy] = [arm / canvas.width, arm / canvas.height];
      trace([[x - dx, y], [x + dx, y]], false);
      trace([[x, y - dy], [x, y + dy]], false);
    }
  }

  const drawing = () => draw.getAttribute("aria-pressed") === "true";

  function changed() {
    field.value = polygons.length ? JSON.stringify(polygons) : "";
    undo.hidden = clear.hidden = !polygons.length && !line.length;
    count.textContent = polygons.length ? `${polygons.length} ${polygons.length === 1 ? "region" : "regions"} drawn.` : "";
    canvas.hidden = !drawing() && !polygons.length;
    paint();
  }

  function close() {
    const corners = line.filter(([x, y], index) => !index || x !== line[index - 1][0] || y !== line[index - 1][1]);
    line = [];
    const total = polygons.reduce((sum, polygon) => sum + polygon.length, corners.length);
    if (corners.length < 3) count.textContent = "A region needs three corners.";
    else if (total > MOST.points || polygons.length >= MOST.polygons) count.textContent = "There is no room for more regions.";
    else {
      polygons.push(corners);
      changed();
      typed();
    }
    paint();
  }

  function toggle(on) {
    draw.setAttribute("aria-pressed", String(on));
    draw.textContent = on ? "Finish drawing" : "Draw the region that matters";
    help.hidden = !on;
    canvas.classList.toggle("resting", !on);
    canvas.tabIndex = on ? 0 : -1;
    if (on) {
      slider.value = 0; // the region is drawn on the picture, not traced from the map
      blend();
      canvas.hidden = false;
      place();
      canvas.focus({ preventScroll: true });
    } else {
      line = [];
    }
    changed();
  }

  function spot(event) {
    const frame = canvas.getBoundingClientRect();
    return [share((event.clientX - frame.left) / frame.width), share((event.clientY - frame.top) / frame.height)];
  }

  draw.addEventListener("click", () => toggle(!drawing()));
  canvas.addEventListener("pointerdown", (event) => {
    if (!drawing() || pointer !== null || event.button) return;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    byKeys = false;
    line = [spot(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    const [x, y] = spot(event);
    const [lastX, lastY] = line.at(-1);
    if (Math.hypot(x - lastX, y - lastY) >= NEAR && line.length < MOST.points) line.push([x, y]);
    paint();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    close();
  });
  canvas.addEventListener("pointercancel", () => {
    pointer = null;
    line = [];
    paint();
  });
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (!drawing()) return;
    const move = MOVES[event.key];
    if (move) cross = cross.map((value, axis) => share(value + move[axis] * (event.shiftKey ? STEP / 4 : STEP)));
    else if (event.key === " ") line.push([...cross]);
    else if (event.key === "Enter" && line.length) close();
    else if (event.key === "Escape") {
      toggle(false);
      draw.focus();
    } else return;
    event.preventDefault();
    byKeys = true;
    undo.hidden = clear.hidden = !polygons.length && !line.length;
    paint();
  });
  undo.addEventListener("click", () => {
    if (line.length) line.pop();
    else polygons.pop();
    changed();
    typed();
    if (undo.hidden) draw.focus();
  });
  clear.addEventListener("click", () => {
    line = [];
    polygons = [];
    changed();
    typed();
    draw.focus();
  });
  canvas.classList.add("resting");
  new ResizeObserver(place).observe(layers);
  if (photo.complete) place();
  photo.addEventListener("load", place);
  changed();
});
