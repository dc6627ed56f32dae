// What is there once, the listeners, and what happens first.

function act(name, ...given) {
  state.message = "";
  ACTIONS[name](...given);
  redraw();
}

// ---- what no action can make -------------------------------------------------------------------

MODELS.forEach((model, n) => {
  const input = make("input", { type: "radio", name: "model", value: n });
  input.dataset.set = "model";
  const alike = MODELS.some((other) => other !== model && other.zDim === model.zDim);
  const text = alike ? model.name : latentsOf(model) + (model.points ? ": a map" : "");
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
$("learn").hidden = !LEARNER;
if (LEARNER) {
  $("epoch").max = LEARNER.epochs.length - 1;
  $("learn-title").textContent = `Watch ${latentsOf(LEARNER)} learn`;
}

function button(action, value, content) {
  const element = make("button", { type: "button", value: JSON.stringify(value) }, content);
  element.dataset.do = action;
  return element;
}

// ---- buttons and inputs ------------------------------------------------------------------------

// Buttons that do more than to change the state.
const OTHERS = {
  choose() { $("file").click(); },
  async link() {
    history.replaceState(null, "", addressOf(state));
    const copied = navigator.clipboard?.writeText(location.href) ?? Promise.reject();
    state.message = await copied.then(() => "The link is copied.",
      () => "The link is in the address bar.");
    redraw();
  },
  check() { tellCheck(); },
  top() { $("draw").scrollIntoView({ behavior: still ? "instant" : "smooth" }); },
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button) return;
  const { value, dataset: { do: name } } = button;
  if (name in OTHERS) OTHERS[name](); else act(name, ...value === "" ? [] : [JSON.parse(value)]);
});

document.addEventListener("input", ({ target }) => {
  const { set, index } = target.dataset;
  if (set) act(set, ...(index === undefined ? [] : [Number(index)]), Number(target.value));
});

$("more").addEventListener("toggle", redraw);

addEventListener("keydown", (event) => {
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    act("undo");
  }
  if (event.key !== "Escape") return;
  document.body.classList.add("quiet"); // explanations that the mouse is on
  if (document.activeElement.matches("dfn")) document.activeElement.blur();
  for (const note of document.querySelectorAll(".note")) note.open = false;
});
addEventListener("pointermove", () => document.body.classList.remove("quiet"));

// The decoded image stays in view.
new IntersectionObserver(([{ isIntersecting }]) => { $("mini").hidden = isIntersecting; },
  { threshold: 0.3 }).observe($("image"));

// ---- paper and map -----------------------------------------------------------------------------

const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

// Calls down and move with the places, in 0..1, where a pointer is put down and drawn.
function follows(element, down, move) {
  const placeIn = ({ clientX, clientY }) => {
    const { left, top, width, height } = element.getBoundingClientRect();
    return { x: (clientX - left) / width, y: (clientY - top) / height };
  };
  element.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button !== 0) return; // a second finger, another mouse button
    element.setPointerCapture(event.pointerId);
    down(placeIn(event));
  });
  element.addEventListener("pointermove", (event) => {
    if (!element.hasPointerCapture(event.pointerId)) return;
    const events = event.getCoalescedEvents?.() ?? [];
    move((events.length ? events : [event]).map(placeIn));
  });
}

follows($("paper"), (place) => act("penDown", place),
  (places) => state.strokes.length && act("penMove", places));
$("paper").addEventListener("keydown", (event) => {
  const { pen } = state;
  if (event.key in ARROWS) {
    const [right, down] = ARROWS[event.key];
    pen.x = clamped(pen.x + right / 25, 0, 1);
    pen.y = clamped(pen.y + down / 25, 0, 1);
    if (pen.down) act("penMove", [pen]);
  } else if (event.key === " ") {
    pen.down = !pen.down;
    if (pen.down) act("penDown", pen);
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

async function take([file]) {
  if (!file) return;
  try {
    const [levels = null, ...others] = levelsOfPicture(await createImageBitmap(file));
    act("picture", levels, others.length);
  } catch {
    state.message = "This file is no picture that the browser can read.";
    redraw();
  }
}
$("file").addEventListener("change", ({ target }) => {
  take([...target.files]);
  target.value = "";
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { // anywhere: beside the paper it would open the file
  event.preventDefault();
  take(event.dataTransfer.files);
});

const goTo = ({ x, y }) => act("place", atPlace(state.model, [x, 1 - y]));
follows($("map").firstElementChild, goTo, (places) => goTo(places.at(-1)));
$("map-place").addEventListener("keydown", (event) => {
  if (!(event.key in ARROWS)) return;
  event.preventDefault();
  const [right, down] = ARROWS[event.key];
  act("place", state.z.map((z, d) => z + 0.05 * [right, -down][d]));
});

// ---- what moves by itself ----------------------------------------------------------------------

const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
requestAnimationFrame(function tick(now, before = now) {
  const { morph } = state, step = Math.min(100, now - before) / MORPH_MS;
  if (morph?.playing) {
    const share = still ? 1 : Math.min(1, morph.share + step);
    ACTIONS.share(share, share < 1);
    redraw();
  }
  requestAnimationFrame((next) => tick(next, now));
});

// ---- first -------------------------------------------------------------------------------------

function openAddress() {
  if (location.hash.length < 2) return;
  state.message = follow(location.hash) ? "" : "This link is not of this page: nothing is opened.";
  redraw();
}
addEventListener("hashchange", openAddress);

act("model", 0);
act("test");
openAddress();
