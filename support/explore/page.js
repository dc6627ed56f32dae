// The page: what is shown, and what happens on a click. The maths is in networks.js; paper.js,
// map.js and check.js come after this file, start.js at the end.

"use strict";

const $ = (id) => document.getElementById(id);
const MODEL = JSON.parse($("model").textContent);
{
  const weights = unpacked(MODEL.weights);
  for (const name of ["encoder", "decoder", "prior"]) MODEL[name] = withWeights(MODEL[name], weights);
}
const TEST_IMAGES = bytesOf(MODEL.images);
const FIRST_SLIDERS = 8, TILES = 24, STEPS = 10;
const BY_HAND = "moved by hand";
const LOSS_NOISE = randomStream(1).normals(MODEL.zDim); // one draw of z, the same for every image

// What is on the page now. An image that is not the decoder's own has its levels in `own`.
const now = {
  z: new Float64Array(MODEL.zDim), own: null, source: "", mode: "expected",
  noise: randomStream(2).uniforms(PIXELS), kept: { A: null, B: null },
};
const random = randomStream(42); // of all that is drawn by clicks

// ---- small things --------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Draws grey levels 0..15 onto a canvas; a place is {left, top} for one tile among many.
function paint(canvas, levels, { left = 0, top = 0 } = {}) {
  const context = canvas.getContext("2d"), image = context.createImageData(SIDE, SIDE);
  image.data.fill(255); // opaque
  levels.forEach((level, i) => image.data.fill(level / (LEVELS - 1) * 255, 4 * i, 4 * i + 3));
  context.putImageData(image, left, top);
}

// At most one call per frame, with what is then true.
function oncePerFrame(action) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; action(); });
  };
}

// Calls job(0), job(1), ... and lets the page answer in between; a new run of one name ends the old.
const runs = {};
async function inSlices(name, count, job) {
  const mine = runs[name] = {};
  let start = performance.now();
  for (let i = 0; i < count; i++) {
    if (performance.now() - start > 12) {
      await new Promise((resume) => setTimeout(resume));
      if (runs[name] !== mine) return false;
      start = performance.now();
    }
    job(i);
  }
  return true;
}

// Buttons that are one stop for the Tab key; arrow keys move among them.
function oneStop(container) {
  const focusable = (chosen) => [...container.children].forEach((b) => { b.tabIndex = b === chosen ? 0 : -1; });
  focusable(container.firstElementChild);
  container.addEventListener("focusin", (event) => focusable(event.target));
  container.addEventListener("keydown", (event) => {
    const all = [...container.children], at = all.indexOf(document.activeElement);
    const columns = all.filter((b) => b.offsetTop === all[0].offsetTop).length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (!step) return;
    event.preventDefault();
    all[at + step]?.focus();
  });
}

function press(container, chosen) {
  for (const button of container.children) button.setAttribute("aria-pressed", button === chosen);
}

// ---- one image and its latents -------------------------------------------------------------------

const sliders = [];

function makeSliders() {
  const { latents } = MODEL.typical, most = Math.max(...latents.map(({ kl }) => kl));
  latents.forEach(({ index, kl, low, high }, rank) => {
    const input = make("input", { type: "range", id: `z${index}`, min: low, max: high, step: 0.01 });
    input.setAttribute("aria-label", `Latent ${index + 1}, tells ${kl.toFixed(1)} nats`);
    const output = make("output"), label = make("label", { htmlFor: input.id }, "z", make("sub", {}, index + 1));
    const told = make("span", { className: "kl" }, `${kl.toFixed(1)} nats`);
    told.style.setProperty("--share", Math.max(0, kl / most));
    $(rank < FIRST_SLIDERS ? "sliders" : "more-sliders").append(make("li", {}, label, input, output, told));
    input.addEventListener("input", () => {
      now.z[index] = input.valueAsNumber;
      show(now.z, BY_HAND);
    });
    sliders.push({ index, input, output, low, high });
  });
  const rest = latents.length - FIRST_SLIDERS;
  $("more").hidden = rest <= 0;
  $("more").firstElementChild.textContent = rest === 1 ? "One more latent" : `${rest} more latents`;
}

// Makes these latents the current ones; own: the image that they were read from, if there is one.
function show(z, source, own = null) {
  Object.assign(now, { z: Float64Array.from(z), source, own });
  render();
}

const render = oncePerFrame(() => {
  const logits = decode(now.z), expected = expectedLevels(logits);
  const shown = now.mode === "drawn" ? drawnLevels(logits, now.noise) : expected;
  for (const id of ["image", "back-image"]) paint($(id), shown);
  if (now.own) paint($("again"), expected);
  if ($("source").textContent !== now.source) $("source").textContent = now.source;
  for (const { index, input, output, low, high } of sliders) {
    if (now.source !== BY_HAND) { // latents of a drawing may lie beyond what the prior reaches
      input.min = Math.min(low, now.z[index]);
      input.max = Math.max(high, now.z[index]);
    }
    input.value = now.z[index];
    output.textContent = signed(now.z[index]);
  }
  placeOnMap();
  renderLoss(now.own ?? shown.map(Math.round));
});

const signed = (value) => value.toFixed(2).replace("-", "−");

function renderLoss(levels) {
  const cost = loss(levels, LOSS_NOISE), { typical } = MODEL;
  const whole = PIXELS * NATS_PER_BIT;
  paint($("loss-image"), levels);
  for (const id of ["rec", "rec-again"]) $(id).textContent = cost.reconstruction.toFixed(1);
  for (const id of ["reg", "reg-again"]) $(id).textContent = cost.regularization.toFixed(1);
  $("bpd").textContent = cost.bpd.toFixed(3);
  // The bar is as long as twice the average test image.
  const share = (nats) => `${Math.min(100, nats / (2 * typical.bpd * whole) * 100)}%`;
  $("rec-bar").style.width = share(cost.reconstruction);
  $("reg-bar").style.width = share(cost.regularization);
  $("compared").textContent = `x is the image that was ${now.own ? "en" : "de"}coded. Test images cost `
    + `${typical.bpd.toFixed(3)} on average, without any model it would be 4.`;
  if (MODEL.prior) renderPrior(cost);
  if (now.own) {
    for (const part of ["rec", "reg", "bpd"]) $(`own-${part}`).textContent = $(part).textContent;
  }
}

// What the same z costs with the learned prior, p(z) = mean of p(z|class), and which class it fits.
function renderPrior({ z, logStd, reconstruction }) {
  const each = MODEL.classes.map((_, label) => logPrior(z, label)), whole = logSumExp(each);
  const logPosterior = LOSS_NOISE.reduce((sum, e, d) => sum - 0.5 * (e * e + Math.log(2 * Math.PI)) - logStd[d], 0);
  const nats = logPosterior - whole + Math.log(each.length);
  const best = each.indexOf(Math.max(...each)), share = Math.exp(each[best] - whole);
  const bpd = (reconstruction + nats) / (PIXELS * NATS_PER_BIT);
  $("prior-cost").textContent = `With the learned prior in place of N(0, I) the latents cost `
    + `${nats.toFixed(1)} nats, the image ${bpd.toFixed(3)} bits per pixel. That prior takes it for: `
    + `${MODEL.classes[best]} (${Math.round(100 * share)} %).`;
}

// ---- new images ----------------------------------------------------------------------------------

function makeClasses() {
  const { classes } = MODEL, learned = MODEL.prior !== null;
  const choices = learned
    ? [["Any", null], ...classes.map((name, label) => [name, label]), ["N(0, I)", "unit"]]
    : [["24 others", "unit"]];
  for (const [text, label] of choices) {
    const button = make("button", { type: "button" }, text);
    button.addEventListener("click", () => {
      press($("classes"), button);
      newImages(label);
    });
    $("classes").append(button);
  }
  $("classes").classList.toggle("few", !learned);
  $("classes").classList.toggle("named", learned && classes.some((name) => name.length > 2));
  if (!learned) {
    $("new-note").textContent = "This model has no learned prior: new images are drawn from N(0, I), "
      + "the plain bell curve that training starts from. Some fall where no image ever was, and "
      + "look like none. Click one to take it onto the sliders.";
  }
  for (let i = 0; i < TILES; i++) $("tiles").append(tile());
  oneStop($("tiles"));
}

function tile() {
  return make("button", { type: "button" }, make("canvas", { width: SIDE, height: SIDE }));
}

function newImages(label) {
  press($("tiles"), null);
  return inSlices("new", TILES, (i) => {
    const drawn = label === null ? Math.floor(random.uniform() * MODEL.classes.length) : label;
    const z = drawn === "unit" ? random.normals(MODEL.zDim) : drawPrior(drawn, random), button = $("tiles").children[i];
    const what = drawn === "unit" ? "a draw from N(0, I)" : `a new ${MODEL.classes[drawn]}`;
    paint(button.firstElementChild, expectedLevels(decode(z)));
    button.setAttribute("aria-label", `${i + 1} of ${TILES}: ${what}`);
    button.onclick = () => {
      press($("tiles"), button);
      show(z, what);
    };
    if (i < 2 && !now.kept["AB"[i]]) keep("AB"[i], z);
  });
}

// ---- between two ---------------------------------------------------------------------------------

function keep(slot, z) {
  now.kept[slot] = Float64Array.from(z);
  paint($(`slot-${slot}`), expectedLevels(decode(z)));
  document.querySelector(`.slot[data-keep="${slot}"]`).setAttribute("aria-label", `${slot}: put the current image here`);
  if (now.kept.A && now.kept.B) renderStrip();
}

const between = (share) => now.kept.A.map((a, d) => a + share * (now.kept.B[d] - a));

function renderStrip() {
  renderMiddle();
  return inSlices("strip", STEPS, (i) => {
    paint($("strip").children[i].firstElementChild, expectedLevels(decode(between(i / (STEPS - 1)))));
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
