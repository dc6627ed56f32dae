// One function, draw(), shows the whole state; each part of it does its work only where what it
// shows has changed.

const $ = (id) => document.getElementById(id);
const FIRST_SLIDERS = innerWidth < 992 ? 6 : 14, BELLS = innerWidth < 992 ? 8 : 12;

// ---- small things ------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function tell(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text; // or it would be read aloud again
}

function press(id, isPressed) { // of the buttons in an element those for which it holds
  [...$(id).children].forEach((button, n) => { button.ariaPressed = isPressed(n, button); });
}

// Draws grey levels onto a canvas, black where there are none; {left, top}: of one tile of many.
function paint(canvas, levels, { left = 0, top = 0 } = {}) {
  const context = canvas.getContext("2d"), image = context.createImageData(SIDE, SIDE);
  image.data.fill(255); // opaque
  for (let i = 0; i < PIXELS; i++) {
    image.data.fill(levels ? levels[i] / (LEVELS - 1) * 255 : 0, 4 * i, 4 * i + 3);
  }
  context.putImageData(image, left, top);
}

// At most one draw() per frame.
let asked = null;
function redraw() {
  asked ??= requestAnimationFrame(() => { asked = null; draw(); });
}

// Calls job(0), job(1), ..., and lets the page answer; a new run of one name ends the old one.
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
const NAMED = PAGE.classes.length > 10 || PAGE.classes.some((name) => name.length > 2);
const latentsOf = ({ zDim }) => zDim === 1 ? "one latent" : `${zDim} latents`;

// ---- what follows from the state ---------------------------------------------------------------

// What the prior reads in latents: p(class | z), the most probable class and the next one, and
// log p(z). Arrays of latents are never altered, and each belongs to one model.
const readings = new WeakMap();
function reading(z) {
  if (!readings.has(z)) {
    const each = logPriors(state.model, z, PAGE.classes.length), whole = logSumExp(each);
    const [best, second] = [...each.keys()].sort((a, b) => each[b] - each[a]);
    const shares = each.map((value) => Math.exp(value - whole));
    readings.set(z, { shares, best, second, logProb: whole - Math.log(each.length) });
  }
  return readings.get(z);
}

// The grey levels that are shown of the current latents.
const shownLevels = () => once("shown", [state.model, state.z, state.drawnPixels], () => {
  const logits = decode(state.model, state.z), { drawnPixels } = state;
  return drawnPixels ? drawnLevels(logits, drawnPixels) : expectedLevels(logits);
});

// The image in view, that on the paper or, once z has moved away from it, the decoded one; and what
// the encoder says of it. Null where there is none.
function inView() {
  const { model, x, z, posterior, origin, drawnPixels } = state;
  if (origin.kind === "empty") return null;
  return once("view", [model, x, z, drawnPixels], () => {
    if (z === posterior?.mean) return { levels: x.levels, posterior, name: nameOfX(x), real: true };
    const levels = shownLevels().map(Math.round), real = drawnPixels !== null; // or it is a mean
    return { levels, posterior: encode(model, levels), name: "decoded", real };
  });
}

// What it costs, with the newest of the ten draws.
function costNow() {
  const { model, noises: [noise] } = state, view = inView();
  return view && once("cost", [model, view, noise], () => {
    const cost = loss(model, view.levels, view.posterior, noise);
    const learned = learnedRegularization(
      model, cost, view.posterior, noise, PAGE.classes.length);
    return { ...cost, learned, learnedBpd: inBpd(cost.reconstruction + learned) };
  });
}

// Which percent of test images have less: of the `hundredths` that the page has of them.
const percentile = (value, among) => among.filter((each) => each < value).length;

// Where the image in view is among test images, and whether it is like hardly any of them. The cost
// of a mean of images, which is smoother than any, does not count.
function placeNow() {
  const { logProbs, costs } = state.model.typical, cost = costNow();
  if (!cost) return null;
  const likely = percentile(reading(state.z).logProb, logProbs);
  const dear = inView().real ? percentile(cost.bpd, costs) : null;
  return { likely, dear, unusual: likely === 0 || dear === 100 };
}

// What stands under the two images.
function nameOfX(x) {
  if (!x) return "empty paper";
  if (x.kind === "test") return `a test image: ${className(x.label)}`;
  return x.kind === "picture" ? "your picture" : "your drawing";
}

function nameOfZ({ origin: { kind, label }, morph }) {
  if (kind === "new") return `a new ${className(label)}`;
  if (kind === "morph") return `${percent(morph.share)} of the way to ${className(label)}`;
  return {
    empty: "nothing to decode", zero: "all latents at 0", hand: "moved by hand",
    map: "a place of the map", link: "latents of a link", unit: "a draw from N(0, I)",
  }[kind] ?? "decoded from its latents";
}

// ---- the parts ---------------------------------------------------------------------------------

function draw() {
  const { model } = state;
  if (changed("model", model)) drawModel(model);
  drawPaper();
  drawImage();
  drawGuess();
  drawMorph();
  drawHeart();
  drawSliders();
  if (model.points) drawMap();
  drawTiles();
  drawChallenge();
  if (LEARNER) drawLearning();
  whenStill();
  tell("message", state.message);
}

// What depends on the model alone.
function drawModel(model) {
  for (const element of document.querySelectorAll(".size")) {
    element.textContent = model.zDim === 1 ? "one number" : `${model.zDim} numbers`;
  }
  $("models").querySelectorAll("input").forEach((input, n) => {
    input.checked = MODELS[n] === model;
  });
  $("latents-title").textContent = model.points ? `The map of all ${PAGE.noun}s` : "Its latents";
  $("map").hidden = $("map-note").hidden = !model.points;
  buildSliders(model);
  const { images, read } = model.typical;
  $("facts").textContent = `Model: ${model.name}, ${latentsOf(model)}, ${PAGE.dataset}. What is `
    + `usual, ${images.toLocaleString("en")} test images say; the class that the learned prior `
    + `reads in the latents is right for ${percent(read)} of them.`;
}

function drawPaper() {
  const { x, strokes, pen } = state;
  if (!changed("paper", x, pen.x, pen.y, pen.down, pen.shown)) return;
  const canvas = $("paper"), context = canvas.getContext("2d"), size = canvas.width;
  context.clearRect(0, 0, size, size);
  if (x && !strokes.length) {
    const small = make("canvas", { width: SIDE, height: SIDE });
    paint(small, x.levels);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, size, size);
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
  const { model, z, drawnPixels, x, posterior, origin } = state;
  tell("z-name", nameOfZ(state));
  $("reread").style.visibility = x && z !== posterior.mean ? "visible" : "hidden";
  if (!changed("image", model, z, drawnPixels, origin.kind)) return;
  const levels = origin.kind === "empty" ? null : shownLevels();
  for (const canvas of [$("image"), $("mini-image")]) paint(canvas, levels);
  $("drawn").ariaPressed = drawnPixels !== null;
}

// What the image in view reads as; no class where it is like hardly any test image.
function drawGuess() {
  const { z, model } = state, place = placeNow(), cost = costNow();
  if (!changed("guess", z, cost)) return;
  const { shares, best, logProb } = reading(z), named = place && !place.unusual;
  $("guess").replaceChildren(...named ? [make("span", { className: "wide" }, "reads as "),
    make("b", {}, className(best)), ` · ${percent(shares[best])}`]
    : [place ? `not like a ${PAGE.noun}` : "nothing to read"]);
  tell("mini-name", $("guess").textContent);
  [...$("bars").children].forEach((bar, label) => { // of long names, the most probable come first
    const rank = NAMED ? shares.filter((share) => share > shares[label]).length : label;
    bar.style = `--share: ${place ? shares[label] : 0}; order: ${rank}`;
    bar.classList.toggle("best", named && label === best);
  });
  const scale = (id, value, among, unit) => {
    const { children: [, band, text], classList } = $(id), above = place?.[id];
    const share = (v) => clamped(0.25 + (v - among[0]) / (among[99] - among[0]) / 2, 0, 1);
    band.style = `--at: ${share(value)}; --middle: ${share(among[49])}`;
    text.textContent = place ? unit + (above === null ? "a mean image" : `above ${above} %`) : "–";
    classList.toggle("none", !Number.isFinite(above));
  };
  const { logProbs, costs } = model.typical;
  scale("likely", logProb, logProbs, `${number(logProb, 1)} nats, `);
  scale("dear", cost?.bpd, costs, cost && `${number(cost.bpd, 2)} bits, `);
}

function drawMorph() {
  const { morph } = state;
  $("way").style.visibility = morph ? "visible" : "hidden";
  $("share").value = morph?.share ?? 0;
  tell("morph-end", morph ? className(morph.label) : "");
  press("targets", (label) => morph?.label === label);
}

// ---- from the image to z and back --------------------------------------------------------------

// One row per latent: N(0, 1) in grey, q(z|x) before it, each as high as it can be, and the draws.
const PER_UNIT = 26; // of 200 from left to right
function bell(name, mean, std) {
  const points = Array.from({ length: 25 }, (_, i) => (i - 12) / 4).map((t) =>
    `${100 + PER_UNIT * (mean + t * std)} ${32 - 30 * Math.exp(-t * t / 2)}`);
  return `<path class="${name}" d="M${points.join("L")}"/>`;
}

function drawHeart() {
  const { noises, model } = state, view = inView(), cost = costNow();
  if (!changed("heart", view, noises, model)) return;
  paint($("heart-x"), view?.levels);
  tell("heart-name", view ? view.name : nameOfX(null));
  paint($("heart-again"), cost && expectedLevels(cost.logits));
  const draws = view ? noises.map((noise) => drawOf(view.posterior, noise)) : [];
  const bells = model.typical.latents.slice(0, BELLS);
  $("bells").innerHTML = bells.map(({ index }) => {
    const dots = draws.map((z) => `<circle cx="${100 + PER_UNIT * z[index]}" cy="34" r="2.5"/>`);
    const q = view && bell("q", view.posterior.mean[index], Math.exp(view.posterior.logStd[index]));
    return `<li><code>z[${index}]</code><svg viewBox="0 0 200 40"><path d="M0 34H200M100 30V38"/>`
      + `${bell("prior", 0, 1)}${q ?? ""}${dots.reverse().join("")}</svg><span>`
      + `${cost ? number(cost.kl[index], 1) : "–"}</span></li>`;
  }).join("");
  const rest = bells.reduce((nats, { index }) => nats - cost?.kl[index], cost?.regularization);
  const others = model.zDim > BELLS && cost ? ` (all others: ${number(rest, 1)})` : "";
  tell("bells-rest", `q(z | x), N(0, I), and the KL in nats${others}`);
  [[cost?.regularization, cost?.bpd], [cost?.learned, cost?.learnedBpd]].forEach(([kl, bpd], n) => {
    const [, bits, bar, text] = $("sums").children[n].children;
    [cost?.reconstruction, kl].forEach((part, i) => {
      const share = cost ? inBpd(part) / (2 * model.typical.costs[49]) : 0;
      bar.children[i].style.width = `${clamped(100 * share, 0, 100)}%`;
      text.children[i].textContent = cost ? number(part, 1) : "–";
    });
    bits.firstElementChild.textContent = cost ? number(bpd, 3) : "–";
  });
  $("again").disabled = !view;
  if (model.points) {
    const place = (z) => onMap(model, z).map((share, i) => 100 * (i ? 1 - share : share));
    const turns = Array.from({ length: 60 }, (_, i) => 2 * Math.PI * i / 60); // at two stds
    const ring = view && turns.map((t) =>
      place(drawOf(view.posterior, [2 * Math.cos(t), 2 * Math.sin(t)])));
    const dots = draws.map((z) => `<path class="dot" d="M${place(z)}h.01"/>`);
    $("map-q").innerHTML = view ? `<path d="M${ring.join("L")}Z"/>${dots.join("")}` : "";
  }
}

// ---- sliders, map, new images, challenges ------------------------------------------------------

const sliders = [], STRIP = [-2, 0, 2];
function buildSliders(model) {
  const { latents, reach } = model.typical;
  sliders.length = 0;
  $("sliders").replaceChildren();
  $("more-sliders").replaceChildren();
  latents.forEach(({ index, kl }, rank) => {
    const ariaLabel = `z[${index}], tells ${kl.toFixed(1)} nats`;
    const input = make("input", { type: "range", min: -reach, max: reach, step: 0.01, ariaLabel });
    Object.assign(input.dataset, { set: "slide", index });
    const strip = make("canvas", { width: STRIP.length * SIDE, height: SIDE, className: "strip" });
    const value = make("span", { ariaHidden: true });
    $(rank < FIRST_SLIDERS ? "sliders" : "more-sliders").append(make("li", {},
      make("code", { ariaHidden: true }, `z[${index}]`), strip,
      make("span", { className: "track" }, input), value,
      make("span", { ariaHidden: true }, kl.toFixed(1))));
    sliders.push({ index, input, value, strip });
  });
  $("more").hidden = latents.length <= FIRST_SLIDERS;
  $("more").firstElementChild.textContent = `${latents.length - FIRST_SLIDERS} more`;
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
  const { model, z } = state, [right, up] = onMap(model, z);
  $("map-place").style = `left: ${100 * right}%; top: ${100 * (1 - up)}%`;
  if (!changed("map", model)) return;
  paintMap(model, $("map-image"));
  paintDots(model, $("map-points"));
}

function drawTiles() {
  const { model, tiles, z } = state;
  press("tiles", (n) => tiles.each[n].z === z);
  if (!changed("tiles", tiles)) return;
  tell("lesson", tiles.choice === "unit"
    ? `Each latent on its own from N(0, I): nothing makes them fit, and many are no ${PAGE.noun}s.`
    : "Nobody wrote these. For each, the learned prior draws four sets of latents; the likeliest is "
      + "decoded.");
  press("classes", (_, { value }) => value === JSON.stringify(tiles.choice));
  [...$("tiles").children].forEach((button, n) => {
    button.ariaLabel = `${n + 1} of ${TILES}: ${nameOfZ({ origin: tiles.each[n] })}`;
    paint(button.firstElementChild, null);
  });
  inSlices("tiles", TILES, (n) => {
    paint($("tiles").children[n].firstElementChild, expectedLevels(decode(model, tiles.each[n].z)));
  });
}

// Who has met one shows it with a link.
const CHALLENGES = [
  {
    title: "Turn a 4 into a 9 with one slider",
    how: "A 4 is on the paper. Which slider makes it a 9? “Back to the paper” begins again.",
    done: ({ z, x, posterior, origin }) => x?.label === 4 && origin.kind !== "drawing"
      && z.filter((value, d) => Math.abs(value - posterior.mean[d]) > 1e-3).length === 1
      && reading(z).best === 9,
  },
  {
    title: "Find a digit that costs more than 1 bit per pixel",
    how: "A test image, or one of your own. What does the model not expect?",
    done: ({ z, posterior }) => z === posterior?.mean && costNow().bpd > 1,
  },
  {
    title: "Draw a 7 that is read as a 1",
    how: "A 7 has to be what the model thinks of next.",
    done: ({ z, x, posterior }) => x?.kind === "drawing" && z === posterior.mean
      && !placeNow().unusual && reading(z).best === 1 && reading(z).second === 7,
  },
];

function drawChallenge() {
  const { challenge } = state, chosen = CHALLENGES[challenge], met = chosen?.done(state);
  if (!changed("challenge", challenge, met)) return;
  press("goals", (n) => n === challenge);
  tell("goal", met ? "Done! “Copy link” shows it to others." : chosen?.how ?? "Choose one.");
}

// The 24 latents that are looked at while it learns: from the trained prior, each class in turn.
const LEARNED_Z = LEARNER && Array.from({ length: TILES },
  (_, n) => drawLikely(LEARNER, n % PAGE.classes.length, randomStream(n)));

const epochName = (epoch) => epoch > 0 && epoch < 1 ? `1/${Math.round(1 / epoch)} epoch`
  : `${Number(epoch.toFixed(2))} epoch${epoch === 1 ? "" : "s"}`;

function drawLearning() {
  const { moment } = state, then = LEARNER.epochs[moment];
  if (!changed("learning", moment)) return;
  $("epoch").value = moment;
  tell("epoch-name", epochName(then.epoch));
  inSlices("then", TILES, (n) => {
    paint($("then").children[n], expectedLevels(decode(then, LEARNED_Z[n])));
  });
  tell("learned", `With ${latentsOf(LEARNER)} a test image costs ${number(then.bpd, 2)} bits per `
    + `pixel after ${epochName(then.epoch)} of ${PAGE.trainImages.toLocaleString("en")} images.`);
}

// ---- what waits until nothing moves ------------------------------------------------------------

// What is read aloud, the address, of which browsers allow few changes, and many small images.
let restTimer = 0;
function whenStill() {
  const { model, x, z, noises, challenge, drawnPixels } = state, more = $("more").open;
  if (!changed("still", model, x, z, noises, challenge, drawnPixels, more)) return;
  clearTimeout(restTimer);
  runs.small = null; // or they would go on beside what comes
  restTimer = setTimeout(() => {
    draw(); // or the sliders might be those of another model than the state's
    history.replaceState(null, "", addressOf(state));
    tell("said", `${$("z-name").textContent}: ${$("guess").textContent}`);
    drawSmall();
  }, 250);
}

// The ten draws, and beside the sliders the image with each latent's value another.
function drawSmall() {
  const { model, z, noises } = state, view = inView();
  const shown = $("more").open ? sliders : sliders.slice(0, FIRST_SLIDERS);
  const decoded = (z) => expectedLevels(decode(model, z));
  const jobs = [...$("draws").children].map((canvas, n) => () =>
    paint(canvas, view && decoded(drawOf(view.posterior, noises[n]))));
  for (const { index, strip } of shown) {
    STRIP.forEach((value, k) => jobs.push(() =>
      paint(strip, decoded(z.with(index, value)), { left: k * SIDE })));
  }
  inSlices("small", jobs.length, (n) => jobs[n]());
}
