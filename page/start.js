// What is there once, the listeners, and what happens first.

"use strict";

function act(name, ...given) {
  state.message = "";
  ACTIONS[name](...given);
  redraw();
}

// ---- what no action can make -------------------------------------------------------------------

MODELS.forEach((model, n) => {
  const input = make("input", { type: "radio", name: "model", value: n });
  input.dataset.set = "model";
  const alike = MODELS.filter(({ zDim }) => zDim === model.zDim).length > 1;
  const text = alike ? model.name : `${latentsOf(model)}${model.points ? ": a map" : ""}`;
  $("models").append(make("label", { title: model.name }, input, make("span", {}, text)));
});
$("models").hidden = MODELS.length === 1;
PAGE.classes.forEach((name, label) => {
  $("targets").append(button("morph", label, name));
  $("bars").append(make("span", { title: name }, name));
  $("legend").append(make("b", { style: `--colour: ${colourOf(label)}` }, name));
});
const choices = [["Any", null], ...PAGE.classes.map((name, n) => [name, n]), ["N(0, I)", "unit"]];
for (const [text, choice] of choices) $("classes").append(button("fresh", choice, text));
document.body.classList.toggle("named", NAMED);
const blank = () => make("canvas", { width: SIDE, height: SIDE });
for (let n = 0; n < TILES; n++) {
  $("tiles").append(button("take", n, blank()));
  $("then").append(blank());
}
for (let n = 0; n < DRAWS; n++) $("draws").append(blank());
CHALLENGES.forEach(({ title }, n) => $("goals").append(button("challenge", n, title)));
$("challenges").hidden = PAGE.noun !== "digit";
oneStop($("tiles"));
$("learn").hidden = !LEARNER;
if (LEARNER) {
  $("epoch").max = LEARNER.epochs.length - 1;
  $("learn-title").textContent = `Watch ${latentsOf(LEARNER)} learn`;
}
$("raw-bits").textContent = `${LEVELS} grey levels take ${Math.log2(LEVELS)} bits`;

function button(action, value, content) {
  const element = make("button", { type: "button", value: String(value) }, content);
  element.dataset.do = action;
  return element;
}

// Buttons that are one stop for the Tab key; arrow keys move among them.
function oneStop(container) {
  const buttons = [...container.children];
  const stopAt = (chosen) => buttons.forEach((b) => { b.tabIndex = b === chosen ? 0 : -1; });
  stopAt(buttons[0]);
  container.addEventListener("focusin", (event) => stopAt(event.target));
  container.addEventListener("keydown", (event) => {
    const columns = buttons.filter((b) => b.offsetTop === buttons[0].offsetTop).length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    if (!(event.key in steps)) return;
    event.preventDefault();
    buttons[buttons.indexOf(document.activeElement) + steps[event.key]]?.focus();
  });
}

// ---- buttons and inputs ------------------------------------------------------------------------

// Buttons that do more than to change the state.
const OTHERS = {
  choose() { $("file").click(); },
  save() {
    const large = make("canvas", { width: 10 * SIDE, height: 10 * SIDE });
    const context = large.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage($("image"), 0, 0, large.width, large.height);
    make("a", { download: `${PAGE.noun}.png`, href: large.toDataURL("image/png") }).click();
  },
  async link() {
    history.replaceState(null, "", addressOf(state));
    try {
      await navigator.clipboard.writeText(location.href);
      state.message = "The link is copied.";
    } catch {
      state.message = "The link is in the address bar.";
    }
    redraw();
  },
  check() { tellCheck(); },
  top() { $("draw").scrollIntoView({ behavior: still ? "instant" : "smooth" }); },
};

const CHOICES = { null: null, unit: "unit" }; // values of buttons that are no numbers

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button) return;
  const { do: name } = button.dataset;
  const { value } = button, given = value in CHOICES ? CHOICES[value] : Number(value);
  if (name in OTHERS) OTHERS[name](); else act(name, ...value === "" ? [] : [given]);
});

document.addEventListener("input", ({ target }) => {
  const { set, index } = target.dataset;
  if (!set) return;
  const value = target.type === "checkbox" ? target.checked : Number(target.value);
  act(set, ...(index === undefined ? [value] : [Number(index), value]));
});

$("more").addEventListener("toggle", redraw);

addEventListener("keydown", (event) => {
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    act("undo");
  }
  if (event.key !== "Escape") return;
  const { activeElement } = document;
  document.body.classList.add("quiet"); // explanations under the mouse
  if (activeElement.matches("dfn")) activeElement.blur();
  const note = activeElement.closest("section")?.querySelector("details.note");
  if (note) note.open = false;
});
addEventListener("pointermove", () => document.body.classList.remove("quiet"));

// The decoded image stays in view.
new IntersectionObserver(([{ isIntersecting }]) => { $("mini").hidden = isIntersecting; },
  { threshold: 0.3 }).observe($("image"));

// ---- the paper ---------------------------------------------------------------------------------

const placeIn = (event, element) => {
  const box = element.getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
};

$("paper").addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return; // a second finger, another mouse button
  event.target.setPointerCapture(event.pointerId);
  act("penDown", placeIn(event, event.target));
});
$("paper").addEventListener("pointermove", (event) => {
  if (!event.target.hasPointerCapture(event.pointerId) || !state.strokes.length) return;
  const events = event.getCoalescedEvents?.() ?? [];
  act("penMove", (events.length ? events : [event]).map((each) => placeIn(each, event.target)));
});
$("paper").addEventListener("keydown", (event) => {
  const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  const { pen } = state;
  if (event.key in steps) {
    const [right, down] = steps[event.key];
    pen.x = clamped(pen.x + right / 25, 0, 1);
    pen.y = clamped(pen.y + down / 25, 0, 1);
    if (pen.down) act("penMove", [{ x: pen.x, y: pen.y }]);
  } else if (event.key === " ") {
    pen.down = !pen.down;
    if (pen.down) act("penDown", { x: pen.x, y: pen.y });
  } else if (event.key === "Delete" || event.key === "Backspace") {
    act("clear");
  } else {
    return;
  }
  event.preventDefault();
  pen.shown = true;
  redraw();
});
$("paper").addEventListener("blur", () => {
  state.pen.shown = state.pen.down = false;
  redraw();
});

async function take(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const [levels = null, ...others] = levelsOfPicture(bitmap);
    act("picture", levels, others.length);
  } catch {
    state.message = "This file is no picture that the browser can read.";
    redraw();
  }
}
$("file").addEventListener("change", ({ target }) => {
  if (target.files.length) take(target.files[0]);
  target.value = "";
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => { // anywhere: beside the paper it would open the file
  event.preventDefault();
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
});

// ---- the map -----------------------------------------------------------------------------------

const field = $("map").firstElementChild;
const followPointer = (event) => {
  const { x, y } = placeIn(event, field);
  act("place", atPlace(state.model, [x, 1 - y]));
};
field.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  field.setPointerCapture(event.pointerId);
  followPointer(event);
});
field.addEventListener("pointermove", (event) => {
  if (field.hasPointerCapture(event.pointerId)) followPointer(event);
});
$("map-place").addEventListener("keydown", (event) => {
  const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (!(event.key in steps)) return;
  event.preventDefault();
  act("place", state.z.map((z, d) => z + 0.05 * (steps[event.key][d] ?? 0)));
});

// ---- what moves by itself ----------------------------------------------------------------------

const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
let lastFrame = 0;
function tick(now) {
  const seconds = Math.min(0.1, (now - lastFrame) / 1000), { morph } = state;
  lastFrame = now;
  if (morph?.playing) {
    const share = still ? 1 : Math.min(1, morph.share + seconds / MORPH_SECONDS);
    ACTIONS.share(share, share < 1);
    redraw();
  }
  requestAnimationFrame(tick);
}
requestAnimationFrame(tick);

// ---- first -------------------------------------------------------------------------------------

function openAddress() {
  const linked = location.hash.length > 1, opened = linked && follow(location.hash);
  if (linked && !opened) state.message = "This link is not of this page: nothing is opened.";
  redraw();
  return opened;
}
addEventListener("hashchange", openAddress);

act("model", 0);
act("test");
openAddress();
