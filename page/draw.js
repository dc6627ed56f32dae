// One function, draw(), shows the whole state; each part of it does its work only where what it
// shows has changed.

"use strict";

const $ = (id) => document.getElementById(id);
const FIRST_SLIDERS = innerWidth < 992 ? 6 : 10;

// ---- small things ------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function tell(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text; // or it would be read aloud again
}

// Draws grey levels 0..15 onto a canvas, black where there are none; a place is {left, top} for
// one tile among many.
function paint(canvas, levels, { left = 0, top = 0 } = {}) {
  const context = canvas.getContext("2d"), image = context.createImageData(SIDE, SIDE);
  image.data.fill(255); // opaque
  for (let i = 0; i < PIXELS; i++) {
    image.data.fill(levels ? levels[i] / (LEVELS - 1) * 255 : 0, 4 * i, 4 * i + 3);
  }
  context.putImageData(image, left, top);
}

// At most one draw() per frame.
let asked = false;
function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(); });
}

// Calls job(0), job(1), ... and lets the page answer in between; a new run of one name ends the
// old one.
const runs = {};
async function inSlices(name, count, job) {
  const mine = runs[name] = {};
  let start = performance.now();
  for (let i = 0; i < count; i++) {
    if (performance.now() - start > 12) {
      await new Promise((resume) => setTimeout(resume));
      if (runs[name] !== mine) return;
      start = performance.now();
    }
    job(i);
  }
}

// Whether a part has to be drawn again: what it shows is another than the last time.
const drawnWith = {};
function changed(part, ...shown) {
  const same = drawnWith[part]?.every((value, i) => Object.is(value, shown[i]));
  drawnWith[part] = shown;
  return !same;
}

// What is computed from the same inputs as the last time is not computed again.
const computed = {};
function once(name, inputs, compute) {
  if (!computed[name]?.inputs.every((value, i) => value === inputs[i])) {
    computed[name] = { inputs, value: compute() };
  }
  return computed[name].value;
}

const number = (value, digits) => value.toFixed(digits).replace("-", "−");
const percent = (share) => `${Math.round(100 * share)} %`;
const className = (label) => PAGE.classes[label];
const latentsOf = ({ zDim }) => zDim === 1 ? "one latent" : `${zDim} latents`;

// ---- what follows from the state ---------------------------------------------------------------

const logitsNow = () => once("logits", [state.model, state.z], () => decode(state.model, state.z));

// What the prior reads in latents: p(class | z), and the most probable class. Arrays of latents are
// never altered, and each belongs to one model.
const readings = new WeakMap();
function reading(z) {
  if (!readings.has(z)) {
    const shares = classProbabilities(state.model, z, PAGE.classes.length);
    readings.set(z, { shares, best: shares.indexOf(Math.max(...shares)) });
  }
  return readings.get(z);
}

// What the image on the paper costs, null without one.
function costNow() {
  const { model, x, posterior } = state;
  return x && once("cost", [model, x], () => {
    const cost = loss(model, x.levels, posterior, model.noise);
    const learned = learnedRegularization(
      model, cost, posterior, model.noise, PAGE.classes.length);
    const priorBpd = (cost.reconstruction + learned) / (PIXELS * NATS_PER_BIT);
    return { ...cost, learned, priorBpd };
  });
}

// What stands under the two images.
function nameOfX(x) {
  if (!x) return "empty paper";
  if (x.kind === "test") return `a test image: ${className(x.label)}`;
  return x.kind === "picture" ? "your picture" : "your drawing";
}

function nameOfZ({ origin: { kind, label }, morph }) {
  return {
    zero: () => "all latents at 0",
    drawing: () => "the same, decoded",
    test: () => "the same, decoded",
    picture: () => "the same, decoded",
    hand: () => "moved by hand",
    map: () => "a place of the map",
    link: () => "latents of a link",
    new: () => `a new ${className(label)}`,
    unit: () => "a draw from N(0, I)",
    morph: () => `${percent(morph.share)} of the way to ${className(label)}`,
  }[kind]();
}

// ---- the parts ---------------------------------------------------------------------------------

function draw() {
  const { model } = state;
  if (changed("model", model)) drawModel(model);
  drawPaper();
  drawImage();
  drawGuess();
  drawMorph();
  drawCost();
  drawSliders();
  if (model.points) drawMap();
  drawTiles();
  if (LEARNER) drawLearning();
  keepAddress();
  tell("message", state.message);
}

// What depends on the model alone.
function drawModel(model) {
  const size = model.zDim === 1 ? "one number" : `${model.zDim} numbers`;
  for (const element of [$("size"), ...document.querySelectorAll(".size")]) {
    element.textContent = size;
  }
  $("models").querySelectorAll("input").forEach((input, n) => {
    input.checked = MODELS[n] === model;
  });
  $("latents-title").textContent = model.points ? `The map of all ${PAGE.noun}s` : "Its latents";
  $("map").hidden = $("map-note").hidden = !model.points;
  buildSliders(model);
  const { images, bpd, read } = model.typical;
  $("average").textContent = number(bpd, 3);
  $("facts").textContent = `Model: ${model.name}, ${latentsOf(model)}, ${PAGE.dataset}. Averages `
    + `are over ${images.toLocaleString("en")} test images; the class that the learned prior reads `
    + `in the latents is right for ${percent(read)} of them.`;
}

function drawPaper() {
  const { x, strokes, pen } = state;
  if (!changed("paper", x, pen.x, pen.y, pen.down, pen.shown)) return;
  const canvas = $("paper"), context = canvas.getContext("2d"), size = canvas.width;
  context.clearRect(0, 0, size, size);
  paint($("seen"), x?.levels);
  if (x && !strokes.length) {
    context.imageSmoothingEnabled = false;
    context.drawImage($("seen"), 0, 0, size, size);
  }
  if (!strokes.length) {
    Object.assign(context, { font: "600 26px system-ui, sans-serif", textAlign: "center" });
    context.fillStyle = "#b9b9c4";
    context.fillText(x ? "draw here" : "draw here, or drop a photo", size / 2, 40);
  }
  trace(context, strokes, PEN / SIDE * size, ({ x, y }) => [x * size, y * size]);
  if (pen.shown) {
    context.beginPath();
    context.arc(pen.x * size, pen.y * size, pen.down ? 8 : 14, 0, 2 * Math.PI);
    Object.assign(context, { strokeStyle: "#ffd34d", lineWidth: 3 });
    context.stroke();
  }
  tell("x-name", nameOfX(x));
  $("clear").disabled = x === null;
  $("undo").disabled = !strokes.length;
}

function drawImage() {
  const { model, z, drawnPixels, x, posterior } = state;
  tell("z-name", nameOfZ(state));
  $("reread").disabled = !x || z === posterior.mean;
  if (!changed("image", model, z, drawnPixels)) return;
  const logits = logitsNow();
  paint($("image"), drawnPixels ? drawnLevels(logits, drawnPixels) : expectedLevels(logits));
  $("drawn").setAttribute("aria-pressed", drawnPixels !== null);
}

function drawGuess() {
  const { model, z } = state;
  if (!changed("guess", model, z)) return;
  const { shares, best } = reading(z);
  const reads = make("span", { className: "wide" }, "reads as ");
  $("guess").replaceChildren(reads, make("b", {}, className(best)),
    ` · ${percent(shares[best])}`);
  [...$("bars").children].forEach((bar, label) => {
    bar.style.setProperty("--share", shares[label]);
    bar.classList.toggle("best", label === best);
  });
}

function drawMorph() {
  const { morph } = state;
  $("share").disabled = morph === null;
  $("share").value = morph?.share ?? 0;
  tell("morph-end", morph ? className(morph.label) : "–");
  [...$("targets").children].forEach((button, label) => {
    button.setAttribute("aria-pressed", morph?.label === label);
  });
}

function drawCost() {
  const { model, x, posterior } = state, cost = costNow();
  if (!changed("cost", model, x)) return;
  const told = (value, digits) => cost ? number(value(), digits) : "–";
  tell("rec", told(() => cost.reconstruction, 1));
  tell("reg", told(() => cost.regularization, 1));
  tell("bpd", told(() => cost.bpd, 3));
  tell("prior-reg", told(() => cost.learned, 1));
  tell("prior-bpd", told(() => cost.priorBpd, 3));
  const nats = 2 * model.typical.bpd * PIXELS * NATS_PER_BIT; // of the whole bar
  const share = (part) => `${cost ? Math.min(100, 100 * part() / nats) : 0}%`;
  $("rec-bar").style.width = share(() => cost.reconstruction);
  $("reg-bar").style.width = share(() => cost.regularization);
  if (!cost) {
    tell("x-cost", "Nothing on the paper: nothing to pay for.");
    return;
  }
  const label = x.label ?? reading(posterior.mean).best;
  const usual = model.typical.bpdOfClass[label] ?? model.typical.bpd;
  tell("x-cost", `This image costs ${number(cost.bpd, 2)} bits per pixel, a typical `
    + `“${className(label)}” ${number(usual, 2)}.${cost.bpd > 1.5 * usual ? " It is unusual." : ""}`);
}

const sliders = [];
function buildSliders(model) {
  const { latents, reach } = model.typical;
  sliders.length = 0;
  $("sliders").replaceChildren();
  $("more-sliders").replaceChildren();
  latents.forEach(({ index, kl }, rank) => {
    const input = make("input", { type: "range", min: -reach, max: reach, step: 0.01 });
    input.setAttribute("aria-label", `z[${index}], tells ${kl.toFixed(1)} nats`);
    Object.assign(input.dataset, { set: "slide", index });
    const texts = [make("code", {}, `z[${index}]`), make("span"), make("span", {}, kl.toFixed(1))];
    for (const text of texts) text.setAttribute("aria-hidden", true);
    const [name, value, told] = texts;
    const track = make("span", { className: "track" }, input);
    $(rank < FIRST_SLIDERS ? "sliders" : "more-sliders")
      .append(make("li", {}, name, track, value, told));
    sliders.push({ index, input, value });
  });
  const rest = latents.length - FIRST_SLIDERS;
  $("more").hidden = rest <= 0;
  $("more").firstElementChild.textContent = rest === 1 ? "One more latent" : `${rest} more latents`;
}

function drawSliders() {
  const { model, z } = state;
  if (!changed("sliders", model, z)) return;
  for (const { index, input, value } of sliders) {
    input.value = z[index];
    value.textContent = number(z[index], 2);
  }
}

function drawMap() {
  const { model, z, dots } = state;
  if (changed("map", model)) {
    paintMap(model, $("map-image"));
    paintDots(model, $("map-points"));
  }
  $("map-points").hidden = !dots;
  const [right, up] = onMap(model, z);
  $("map-place").style.left = `${100 * right}%`;
  $("map-place").style.top = `${100 * (1 - up)}%`;
}

const LESSONS = {
  learned: () => "Nobody wrote these: of four draws from the learned prior, each is the likeliest. "
    + "Click to take one.",
  unit: () => "Each latent on its own from N(0, I): nothing makes them go together, and many are no "
    + `${PAGE.noun}s.`,
};

function drawTiles() {
  const { model, tiles, z } = state;
  [...$("tiles").children].forEach((button, n) => {
    button.setAttribute("aria-pressed", tiles.each[n].z === z);
  });
  if (!changed("tiles", tiles)) return;
  tell("lesson", LESSONS[tiles.choice === "unit" ? "unit" : "learned"]());
  for (const button of $("classes").children) {
    button.setAttribute("aria-pressed", button.value === String(tiles.choice));
  }
  [...$("tiles").children].forEach((button, n) => {
    const { kind, label } = tiles.each[n];
    const what = kind === "unit" ? "a draw from N(0, I)" : `a new ${className(label)}`;
    button.setAttribute("aria-label", `${n + 1} of ${TILES}: ${what}`);
    paint(button.firstElementChild, null);
  });
  inSlices("tiles", TILES, (n) => {
    paint($("tiles").children[n].firstElementChild, expectedLevels(decode(model, tiles.each[n].z)));
  });
}

// The 24 latents that are looked at while it learns: from the trained prior, each class in turn.
const LEARNED_Z = LEARNER && Array.from({ length: TILES },
  (_, n) => drawLikely(LEARNER, n % PAGE.classes.length, randomStream(n)));

const epochName = (epoch) => epoch > 0 && epoch < 1 ? `1/${Math.round(1 / epoch)} epoch`
  : `${Number(epoch.toFixed(2))} epoch${epoch === 1 ? "" : "s"}`;

function drawLearning() {
  const { moment, learning, x } = state, then = LEARNER.epochs[moment];
  $("play").textContent = learning ? "Pause" : "Play";
  if (!changed("learning", moment, x)) return;
  $("epoch").value = moment;
  tell("epoch-name", epochName(then.epoch));
  if (changed("then", moment)) {
    inSlices("then", TILES, (n) => {
      paint($("then").children[n], expectedLevels(decode(then, LEARNED_Z[n])));
    });
    drawCurve(moment);
  }
  paint($("then-x"), x?.levels);
  paint($("then-again"), x && expectedLevels(decode(then, encode(then, x.levels).mean)));
}

// Bits per pixel against epochs; roots of the one and logarithms of the other, as the first epochs
// change the most.
function drawCurve(moment) {
  const { epochs } = LEARNER, last = epochs.at(-1).epoch;
  const heights = epochs.map(({ bpd }) => Math.log(bpd));
  const low = Math.min(...heights), span = Math.max(...heights) - low;
  const points = epochs.map(({ epoch }, n) => [
    8 + 284 * Math.sqrt(epoch / last), 70 - 60 * (heights[n] - low) / span,
  ]);
  const [x, y] = points[moment], { bpd } = epochs[moment];
  const ticks = [0, 1, 2, 4, 8, 16, 32, 64].filter((epoch) => epoch <= last).map((epoch) =>
    `<text x="${8 + 284 * Math.sqrt(epoch / last)}" y="92">${epoch}</text>`);
  $("curve").innerHTML = `<path d="M8 76H292"/><polyline points="${points.join(" ")}"/>`
    + `<circle cx="${x}" cy="${y}" r="6"/>${ticks.join("")}`;
  tell("curve-name", `${number(bpd, 2)} bits per pixel`);
}

// The address follows once nothing has moved for a while, as browsers allow few changes of it.
let addressTimer = 0;
function keepAddress() {
  if (!changed("address", state.z)) return;
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => history.replaceState(null, "", addressOf(state.z)), 400);
}
