// The page: what is shown, and what happens on a click. The maths is in networks.js; paper.js,
// map.js and check.js come after this file, start.js at the end.

"use strict";

const $ = (id) => document.getElementById(id);
const MODEL = JSON.parse($("model").textContent);
{
  const weights = unpacked(MODEL.weights);
  for (const name of ["encoder", "decoder", "prior"]) {
    MODEL[name] = withWeights(MODEL[name], weights);
  }
}
const TEST_IMAGES = bytesOf(MODEL.images);
const FIRST_SLIDERS = 12, TILES = 24, STEPS = 10;
const BY_HAND = "moved by hand";
const LOSS_NOISE = randomStream(1).normals(MODEL.zDim); // one draw of z, the same for every image
const random = randomStream(42); // of all that is drawn by clicks

// What is on the page now. `read` is the image that the encoder read, {levels, mean, logStd}; it is
// null where the image is the decoder's own.
const now = {
  z: new Float64Array(MODEL.zDim), read: null, source: "", mode: "expected",
  noise: randomStream(2).uniforms(PIXELS), kept: { A: null, B: null },
};

// ---- small things ------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const clamped = (value, low, high) => Math.min(high, Math.max(low, value));

const testImage = (n) => TEST_IMAGES.subarray(n * PIXELS, (n + 1) * PIXELS);

// Draws grey levels 0..15 onto a canvas; a place is {left, top} for one tile among many.
function paint(canvas, levels, { left = 0, top = 0 } = {}) {
  const context = canvas.getContext("2d"), image = context.createImageData(SIDE, SIDE);
  image.data.fill(255); // opaque
  levels.forEach((level, i) => image.data.fill(level / (LEVELS - 1) * 255, 4 * i, 4 * i + 3));
  context.putImageData(image, left, top);
}

// At most one call per frame, with what is then true. What the action asks for in its turn comes in
// the same frame.
const pending = new Set();
function oncePerFrame(action) {
  return () => {
    pending.add(action);
    requestAnimationFrame(() => pending.forEach((next) => { pending.delete(next); next(); }));
  };
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

function press(container, chosen) {
  for (const button of container.children) button.setAttribute("aria-pressed", button === chosen);
}

// ---- one image and its latents -----------------------------------------------------------------

const sliders = [];

function makeSliders() {
  const { latents } = MODEL.typical;
  latents.forEach(({ index, kl, low, high }, rank) => {
    const input = make("input", { type: "range", min: low, max: high, step: 0.01 });
    input.setAttribute("aria-label", `z ${index + 1}, tells ${kl.toFixed(1)} nats`);
    const name = make("i", {}, "z", make("sub", {}, index + 1));
    const value = make("span"), told = make("span", { className: "kl" }, kl.toFixed(1));
    for (const silent of [name, value, told]) silent.setAttribute("aria-hidden", true);
    const list = $(rank < FIRST_SLIDERS ? "sliders" : "more-sliders");
    list.append(make("li", {}, name, input, value, told));
    input.addEventListener("input", () => {
      now.z[index] = input.valueAsNumber;
      show(now.z, BY_HAND);
    });
    sliders.push({ index, input, value, low, high });
  });
  const rest = latents.length - FIRST_SLIDERS;
  $("more").hidden = rest <= 0;
  $("more").firstElementChild.textContent = rest === 1 ? "One more latent" : `${rest} more latents`;
}

// Makes these latents the current ones.
function show(z, source, read = null) {
  Object.assign(now, { z: Float64Array.from(z), source, read });
  render();
}

const render = oncePerFrame(() => {
  const logits = decode(now.z), expected = expectedLevels(logits);
  const shown = now.mode === "drawn" ? drawnLevels(logits, now.noise) : expected;
  for (const id of ["image", "back-image"]) paint($(id), shown);
  if (now.read) paint($("again"), expected);
  if ($("source").textContent !== now.source) $("source").textContent = now.source;
  for (const { index, input, value, low, high } of sliders) {
    if (now.source !== BY_HAND) { // latents of a drawing may lie beyond what the prior reaches
      input.min = Math.min(low, now.z[index]);
      input.max = Math.max(high, now.z[index]);
    }
    input.value = now.z[index];
    value.textContent = now.z[index].toFixed(2).replace("-", "−");
  }
  placeOnMap();
  renderLoss(shown);
});

// What the current image costs: the one that was read, or else the one that is shown.
function renderLoss(shown) {
  const levels = now.read?.levels ?? shown.map(Math.round);
  const posterior = now.read ?? encode(levels), cost = loss(levels, posterior, LOSS_NOISE);
  const told = {
    rec: cost.reconstruction.toFixed(1), reg: cost.regularization.toFixed(1),
    bpd: cost.bpd.toFixed(3),
  };
  paint($("loss-image"), levels);
  for (const [part, text] of Object.entries(told)) {
    $(part).textContent = text;
    if (now.read) $(`own-${part}`).textContent = text;
  }
  $("rec-again").textContent = told.rec;
  $("reg-again").textContent = told.reg;
  const average = MODEL.typical.bpd;
  const end = 2 * average * PIXELS * NATS_PER_BIT; // of the bar, in nats
  $("rec-bar").style.width = `${Math.min(100, 100 * cost.reconstruction / end)}%`;
  $("reg-bar").style.width = `${Math.min(100, 100 * cost.regularization / end)}%`;
  $("loss-source").textContent = now.read ? "x, as read" : "x, as drawn";
  renderPrior(cost, posterior);
}

// What the same z costs with the learned prior, p(z) = mean of p(z|class), and which class it fits.
function renderPrior({ z, reconstruction }, { logStd }) {
  const each = MODEL.classes.map((_, label) => logPrior(z, label)), whole = logSumExp(each);
  const logPosterior = LOSS_NOISE.reduce(
    (sum, e, d) => sum - 0.5 * (e * e + Math.log(2 * Math.PI)) - logStd[d], 0);
  const nats = logPosterior - whole + Math.log(each.length);
  const best = each.indexOf(Math.max(...each)), share = Math.exp(each[best] - whole);
  const bpd = (reconstruction + nats) / (PIXELS * NATS_PER_BIT);
  $("prior-reg").textContent = nats.toFixed(1);
  $("prior-bpd").textContent = bpd.toFixed(3);
  $("prior-class").textContent = `${MODEL.classes[best]} (${Math.round(100 * share)} %)`;
}

// ---- new images --------------------------------------------------------------------------------

function makeClasses() {
  const { classes } = MODEL;
  const choices = [["Any", null], ...classes.map((name, n) => [name, n]), ["N(0, I)", "unit"]];
  for (const [text, label] of choices) {
    const button = make("button", { type: "button" }, text);
    button.addEventListener("click", () => {
      press($("classes"), button);
      newImages(label);
    });
    $("classes").append(button);
  }
  $("classes").classList.toggle("named", classes.some((name) => name.length > 2));
  for (let i = 0; i < TILES; i++) $("tiles").append(tile());
  oneStop($("tiles"));
}

function tile() {
  return make("button", { type: "button" }, make("canvas", { width: SIDE, height: SIDE }));
}

// 24 draws from p(z|label), from p(z) where the label is null, from N(0, I) where it is "unit".
function newImages(label) {
  press($("tiles"), null);
  const lesson = label !== "unit" ? "learned" : "unit";
  for (const each of $("lessons").children) {
    each.classList.toggle("shown", each.dataset.lesson === lesson);
  }
  return inSlices("new", TILES, (i) => {
    const drawn = label ?? Math.floor(random.uniform() * MODEL.classes.length);
    const unit = drawn === "unit";
    const z = unit ? random.normals(MODEL.zDim) : drawPrior(drawn, random);
    const what = unit ? "a draw from N(0, I)" : `a new ${MODEL.classes[drawn]}`;
    const button = $("tiles").children[i];
    paint(button.firstElementChild, expectedLevels(decode(z)));
    button.setAttribute("aria-label", `${i + 1} of ${TILES}: ${what}`);
    button.onclick = () => {
      press($("tiles"), button);
      show(z, what);
    };
  });
}

// ---- between two -------------------------------------------------------------------------------

function keep(slot, z) {
  now.kept[slot] = Float64Array.from(z);
  paint($(`slot-${slot}`), expectedLevels(decode(z)));
  if (now.kept.A && now.kept.B) renderStrip();
}

const between = (share) => now.kept.A.map((a, d) => a + share * (now.kept.B[d] - a));

function renderStrip() {
  renderMiddle();
  return inSlices("strip", STEPS, (i) => {
    const z = between(i / (STEPS - 1));
    paint($("strip").children[i].firstElementChild, expectedLevels(decode(z)));
  });
}

function renderMiddle() {
  paint($("middle"), expectedLevels(decode(between($("share").valueAsNumber))));
}

function goBetween() {
  const share = $("share").valueAsNumber;
  renderMiddle();
  show(between(share), `${Math.round(100 * share)} % of the way from A to B`);
}

function makeStrip() {
  for (let i = 0; i < STEPS; i++) {
    const button = tile();
    button.setAttribute("aria-label", `step ${i + 1} of ${STEPS} from A to B`);
    button.addEventListener("click", () => {
      $("share").value = i / (STEPS - 1);
      goBetween();
    });
    $("strip").append(button);
  }
  oneStop($("strip"));
  $("share").addEventListener("input", oncePerFrame(goBetween));
}
