// The page: what is shown, and what happens on a click. The maths is in networks.js.

"use strict";

const $ = (id) => document.getElementById(id);
const MODEL = JSON.parse($("model").textContent);
{
  const weights = halfFloats(MODEL.weights);
  for (const name of ["encoder", "decoder", "prior"]) MODEL[name] = withWeights(MODEL[name], weights);
}
const TEST_IMAGES = bytesOf(MODEL.images);
const FIRST_SLIDERS = 8, TILES = 24, STEPS = 10, MAP_TILES = 20;
const PEN = 2.6, BOX = 20; // pixels: the width of MNIST's strokes, the side of the box they are in
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
  levels.forEach((level, i) => image.data.set([1, 1, 1].fill(level / (LEVELS - 1) * 255), 4 * i));
  for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255;
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
    if (performance.now() - start > 20) {
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
      show(now.z, "moved by hand");
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
    // Latents of a drawing may lie beyond what the prior reaches.
    input.min = Math.min(low, now.z[index]);
    input.max = Math.max(high, now.z[index]);
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
  $("compared").textContent = `Test images cost ${typical.bpd.toFixed(3)} on average, an image of `
    + "16 grey levels without any model 4.";
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
      + "the plain bell curve that training starts from. Many of them are clouds, as they fall where "
      + "no image ever was. Click one to take it onto the sliders.";
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

// ---- one's own -----------------------------------------------------------------------------------

const paper = { strokes: [], image: false, pen: { x: 0.5, y: 0.5, down: false, shown: false } }; // places in 0..1

function drawPaper() {
  const canvas = $("paper"), context = canvas.getContext("2d"), { strokes, pen } = paper;
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (paper.image) {
    context.imageSmoothingEnabled = false;
    context.drawImage($("seen"), 0, 0, canvas.width, canvas.height);
  } else if (!strokes.length) {
    context.font = "24px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillStyle = "#9a9aa2";
    context.fillText("draw here", canvas.width / 2, canvas.height / 2);
  }
  context.strokeStyle = "#fff";
  trace(context, strokes, PEN / SIDE * canvas.width, (place) => place * canvas.width);
  if (pen.shown) {
    context.beginPath();
    context.arc(pen.x * canvas.width, pen.y * canvas.width, pen.down ? 8 : 14, 0, 2 * Math.PI);
    context.strokeStyle = "#ffd34d";
    context.lineWidth = 3;
    context.stroke();
  }
}

function trace(context, strokes, width, placeX, placeY = placeX) {
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round" });
  for (const stroke of strokes) {
    context.beginPath();
    stroke.forEach(({ x, y }) => context.lineTo(placeX(x), placeY(y)));
    if (stroke.length === 1) context.lineTo(placeX(stroke[0].x), placeY(stroke[0].y));
    context.stroke();
  }
}

// Strokes to 784 grey levels, as MNIST's images were made: fitted into a box of 20x20 pixels, the
// centre of mass in the middle of 28x28, min(round(16 x), 15). The strokes keep MNIST's width.
const SHARP = 8; // a pixel is the mean of 8x8
const board = make("canvas", { width: SIDE * SHARP, height: SIDE * SHARP }).getContext("2d", { willReadFrequently: true });
function rasterized(strokes) {
  const points = strokes.flat();
  const ends = (axis) => [Math.min(...points.map((p) => p[axis])), Math.max(...points.map((p) => p[axis]))];
  const [left, right] = ends("x"), [top, bottom] = ends("y");
  const scale = (BOX - PEN) / Math.max(right - left, bottom - top, 0.02);
  const inked = (shiftX, shiftY) => {
    board.clearRect(0, 0, SIDE * SHARP, SIDE * SHARP);
    board.strokeStyle = "#fff";
    const place = (middle, shift) => (at) => ((at - middle) * scale + SIDE / 2 + shift) * SHARP;
    trace(board, strokes, PEN * SHARP, place((left + right) / 2, shiftX), place((top + bottom) / 2, shiftY));
    const { data } = board.getImageData(0, 0, SIDE * SHARP, SIDE * SHARP);
    const ink = new Float64Array(PIXELS);
    for (let i = 3, n = 0; i < data.length; i += 4, n++) {
      const x = Math.floor((n % (SIDE * SHARP)) / SHARP), y = Math.floor(n / (SIDE * SHARP) / SHARP);
      ink[y * SIDE + x] += data[i] / 255 / SHARP ** 2;
    }
    return ink;
  };
  const ink = inked(0, 0), total = ink.reduce((sum, value) => sum + value);
  const centre = (place) => ink.reduce((sum, value, i) => sum + value * place(i), 0) / total;
  const shiftX = SIDE / 2 - centre((i) => i % SIDE), shiftY = SIDE / 2 - centre((i) => Math.floor(i / SIDE));
  return inked(Math.round(shiftX), Math.round(shiftY)).map((value) => Math.min(Math.round(LEVELS * value), LEVELS - 1));
}

function read(levels, source) {
  paint($("seen"), levels);
  drawPaper();
  show(encode(levels).mean, source, levels);
}

const readPaper = oncePerFrame(() => {
  paper.image = false;
  if (paper.strokes.length) {
    read(rasterized(paper.strokes), "your drawing, decoded");
  } else {
    drawPaper();
    for (const id of ["seen", "again"]) paint($(id), new Float64Array(PIXELS));
    for (const part of ["rec", "reg", "bpd"]) $(`own-${part}`).textContent = "–";
    if (now.own) show(now.z, "moved by hand");
  }
});

function listenToPaper() {
  const canvas = $("paper"), { strokes, pen } = paper;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pen.shown = false;
    strokes.push([place(event)]);
    readPaper();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    strokes.at(-1).push(...(event.getCoalescedEvents?.() ?? [event]).map(place));
    readPaper();
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (step) {
      pen.x = Math.min(1, Math.max(0, pen.x + step[0] / 25));
      pen.y = Math.min(1, Math.max(0, pen.y + step[1] / 25));
      if (pen.down) strokes.at(-1).push({ x: pen.x, y: pen.y });
    } else if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) strokes.push([{ x: pen.x, y: pen.y }]);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      clearPaper();
    } else {
      return;
    }
    event.preventDefault();
    pen.shown = true;
    readPaper();
  });
  canvas.addEventListener("blur", () => { pen.shown = pen.down = false; drawPaper(); });
}

function clearPaper() {
  paper.strokes.length = 0;
  paper.pen.down = false;
  readPaper();
}

let nextTestImage = 2; // MNIST's first test image, a 7
function takeTestImage() {
  const n = nextTestImage++ * 7 % MODEL.labels.length; // one class after the other
  paper.strokes.length = 0;
  paper.image = true;
  read(TEST_IMAGES.subarray(n * PIXELS, (n + 1) * PIXELS), `a test image, a ${MODEL.classes[MODEL.labels[n]]}, decoded`);
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

// ---- the map of one or two latents ---------------------------------------------------------------

// The first latent runs to the right, the second one upwards; both from low to high.
function mapAxes() {
  const ends = (d) => MODEL.typical.latents.find(({ index }) => index === d);
  return Array.from({ length: MODEL.zDim }, (_, d) => ends(d));
}

function makeMap() {
  const axes = mapAxes(), rows = axes.length === 2 ? MAP_TILES : 1, canvas = $("map-image");
  const at = ({ low, high }, share) => low + share * (high - low);
  $("map").hidden = false;
  for (const id of ["map-image", "map-points"]) {
    $(id).width = MAP_TILES * SIDE * (id === "map-points" ? 2 : 1);
    $(id).height = rows * SIDE * (id === "map-points" ? 2 : 1);
    $(id).style.aspectRatio = `${MAP_TILES} / ${rows}`;
  }
  const go = (event) => {
    const box = canvas.getBoundingClientRect();
    const shares = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
    show(axes.map((axis, d) => at(axis, Math.min(1, Math.max(0, shares[d])))), "from the map");
  };
  const field = canvas.parentElement;
  field.addEventListener("pointerdown", (event) => { field.setPointerCapture(event.pointerId); go(event); });
  field.addEventListener("pointermove", (event) => { if (field.hasPointerCapture(event.pointerId)) go(event); });
  $("map-place").addEventListener("keydown", (event) => {
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!step) return;
    event.preventDefault();
    show(axes.map(({ low, high }, d) => Math.min(high, Math.max(low, now.z[d] + 0.05 * step[d]))), "from the map");
  });
  $("map-show").addEventListener("change", () => { $("map-points").hidden = !$("map-show").checked; });
  drawPoints(axes);
  const tiles = MAP_TILES * rows;
  return inSlices("map", tiles, (i) => {
    const n = i * 157 % tiles; // all over the map; 157 has no divisor in common with 20 or 400
    const column = n % MAP_TILES, row = Math.floor(n / MAP_TILES);
    const shares = [(column + 0.5) / MAP_TILES, 1 - (row + 0.5) / rows];
    const z = axes.map((axis, d) => at(axis, shares[d]));
    paint(canvas, expectedLevels(decode(z)), { left: column * SIDE, top: row * SIDE });
  });
}

function drawPoints(axes) {
  const canvas = $("map-points"), context = canvas.getContext("2d"), { mean, labels } = MODEL.points;
  const means = floatsOf(mean), share = ({ low, high }, value) => (value - low) / (high - low);
  Object.assign(context, { font: "600 20px system-ui, sans-serif", textAlign: "center", textBaseline: "middle" });
  labels.forEach((label, n) => {
    const x = share(axes[0], means[n * axes.length]) * canvas.width;
    const upwards = axes.length === 2 ? share(axes[1], means[2 * n + 1]) : 0.1 + 0.8 * (n % 7) / 6;
    context.fillStyle = `hsl(${36 * label} 90% ${label % 2 ? 60 : 75}%)`;
    context.fillText(label, x, (1 - upwards) * canvas.height);
  });
}

function placeOnMap() {
  if ($("map").hidden) return;
  const shares = mapAxes().map(({ low, high }, d) => Math.min(1, Math.max(0, (now.z[d] - low) / (high - low))));
  $("map-place").style.left = `${100 * shares[0]}%`;
  $("map-place").style.top = `${100 * (1 - (shares[1] ?? 0.5))}%`;
}

// ---- the check against PyTorch -------------------------------------------------------------------

// The largest differences between this page's numbers and PyTorch's, on the inputs in the page.
async function selfTest() {
  const { check } = MODEL, count = MODEL.labels.length, D = MODEL.zDim;
  const [noise, mean, logStd, logits] = ["noise", "mean", "logStd", "logits"].map((name) => floatsOf(check[name]));
  const mixtures = check.mixtures === null ? null : floatsOf(check.mixtures);
  const worst = { inputs: 0, encoder: 0, decoder: 0, bpd: 0, prior: 0 };
  const compare = (name, value, truth) => { // NaN must not pass
    const difference = Math.abs(value - truth);
    worst[name] = difference <= worst[name] ? worst[name] : difference;
  };
  let next = 0, nextMixture = 0; // in the rows of logits and mixtures
  await inSlices("check", count, (n) => {
    const levels = TEST_IMAGES.subarray(n * PIXELS, (n + 1) * PIXELS), own = noise.subarray(n * D, (n + 1) * D);
    const cost = loss(levels, own);
    const z = Float64Array.from(own, (e, d) => mean[n * D + d] + Math.exp(logStd[n * D + d]) * e);
    const decoded = decode(z);
    for (let d = 0; d < D; d++) {
      compare("encoder", cost.mean[d], mean[n * D + d]);
      compare("encoder", cost.logStd[d], logStd[n * D + d]);
    }
    for (let pixel = 0; pixel < PIXELS; pixel++) {
      if ((pixel + n) % check.every) continue;
      for (let v = 0; v < LEVELS; v++) compare("decoder", decoded[pixel * LEVELS + v], logits[next++]);
    }
    compare("bpd", cost.bpd, check.bpd[n]);
    if (mixtures) {
      const mixture = conditionals(MODEL.labels[n]);
      for (let i = 0; i < D; i++) {
        const { logWeights, means, logStds } = mixture(i, z);
        for (const value of [...logWeights, ...means, ...logStds]) compare("prior", value, mixtures[nextMixture++]);
      }
      compare("prior", logPrior(z, MODEL.labels[n]), check.logPrior[n]);
    }
    worst.inputs++;
  });
  const compared = worst.inputs === count && next === logits.length && nextMixture === (mixtures?.length ?? 0);
  worst.passed = compared && worst.bpd < 1e-3
    && ["encoder", "decoder", "prior"].every((name) => worst[name] < 2e-2);
  return worst;
}

async function tellCheck() {
  $("checked").textContent = "computing …";
  const { passed, inputs, encoder, decoder, bpd, prior } = await selfTest();
  $("checked").textContent = `${passed ? "The same" : "NOT the same"}: largest differences on ${inputs} test images `
    + `${encoder.toExponential(1)} in the encoder's means and log stds, ${decoder.toExponential(1)} in the decoder's `
    + `logits, ${bpd.toExponential(1)} in bits per dimension`
    + (MODEL.prior ? `, ${prior.toExponential(1)} in the learned prior.` : ".");
}

// ---- the start -----------------------------------------------------------------------------------

makeSliders();
makeClasses();
makeStrip();
listenToPaper();
for (const input of document.querySelectorAll("input[name=mode]")) {
  input.addEventListener("change", () => {
    now.mode = input.value;
    $("redraw").disabled = now.mode === "expected";
    render();
  });
}
$("redraw").addEventListener("click", () => { now.noise = random.uniforms(PIXELS); render(); });
$("zero").addEventListener("click", () => show(now.z.map(() => 0), "all latents at 0"));
$("clear").addEventListener("click", clearPaper);
$("undo").addEventListener("click", () => { paper.strokes.pop(); readPaper(); });
$("test-image").addEventListener("click", takeTestImage);
$("check").addEventListener("click", tellCheck);
for (const button of document.querySelectorAll("[data-keep]")) {
  button.addEventListener("click", () => keep(button.dataset.keep, now.z));
}
new IntersectionObserver(([image]) => { $("back").hidden = image.isIntersecting; }).observe($("image"));
$("about").textContent = `Model: ${MODEL.name}, ${MODEL.zDim === 1 ? "one latent" : `${MODEL.zDim} latents`}, `
  + `${MODEL.dataset}. The averages are over ${MODEL.typical.images.toLocaleString("en")} test images.`;
$("prior-cost").hidden = MODEL.prior === null;
if (MODEL.points) makeMap();
takeTestImage();
$("classes").firstElementChild.click();
