// What is true now, in one object, and all that can change it. Nothing here draws: whoever calls an
// action calls redraw() after it, and draw() in draw.js shows the whole state.

const PAGE = JSON.parse(document.getElementById("model").textContent);
const MODELS = PAGE.models.map(unpackedModel);
const LEARNER = MODELS.find((model) => model.epochs.length); // whose epochs are in the page
const TEST_IMAGES = bytesOf(PAGE.images);
const TILES = 24, DRAWS = 10;
const MORPH_MS = 2500;
const random = randomStream(42); // of all that is drawn by clicks

function unpackedModel(described) {
  const { encoder, decoder, prior, epochs, ...model } = described;
  const networks = withWeights({ encoder, decoder, prior }, unpacked(model.weights));
  return {
    ...model, ...networks,
    epochs: epochs.map(({ weights, ...then }) => ({
      ...then, zDim: model.zDim, ...withWeights({ encoder, decoder }, unpacked(weights)),
    })),
  };
}

const testImage = (n) => TEST_IMAGES.subarray(n * PIXELS, (n + 1) * PIXELS);
const clamped = (value, low, high) => Math.min(high, Math.max(low, value));

const state = {
  model: MODELS[0],
  strokes: [],      // being drawn on the paper: lists of {x, y} in 0..1
  pen: { x: 0.5, y: 0.5, down: false, shown: false }, // the keyboard's
  x: null,          // what the encoder read: {kind, levels, label}; null for an empty paper
  posterior: null,  // what it said of x: {mean, logStd}
  z: new Float64Array(MODELS[0].zDim), // what the decoder draws; always a new array, never altered
  origin: { kind: "empty" }, // where z is from: {kind, label}
  noises: [],       // of the ten draws from q(z|x), the newest first; all costs come from this one
  morph: null,      // {from, to, label, share, playing}
  drawnPixels: null, // noise, where grey levels are drawn; null for the mean
  tiles: { choice: null, each: [] }, // choice: a class, null for any, "unit" for N(0, I)
  moment: LEARNER ? LEARNER.epochs.length - 1 : 0, // of LEARNER: the epoch that is shown
  challenge: null,  // a place in CHALLENGES
  nextTest: 2,      // MNIST's first test image, a 7
  message: "",      // what became of a picture or a link, until the next action
};

// ---- changes that others are made of -----------------------------------------------------------

// Makes these latents the current ones.
function go(z, kind, label = null) {
  state.z = z;
  state.origin = { kind, label };
  state.morph = null;
}

// Puts an image on the paper, or nothing; its latents become the current ones.
function read(x) {
  state.x = x;
  state.posterior = x && encode(state.model, x.levels);
  if (x === null) go(new Float64Array(state.model.zDim), "empty");
  else go(state.posterior.mean, x.kind, x.label);
}

function readStrokes() {
  const { strokes } = state;
  read(strokes.length ? { kind: "drawing", levels: levelsOfStrokes(strokes), label: null } : null);
}

// A class's own latents, to morph into: those of its first test image, if there is one.
function targetOf(label) {
  const n = PAGE.labels.indexOf(label);
  return n < 0 ? drawLikely(state.model, label, random) : encode(state.model, testImage(n)).mean;
}

// ---- what can be done --------------------------------------------------------------------------

const ACTIONS = {
  model(n) {
    state.model = MODELS[n];
    state.noises = Array.from({ length: DRAWS }, () => random.normals(state.model.zDim));
    read(state.x);
    ACTIONS.fresh(state.tiles.choice);
  },

  // paper
  penDown(place) {
    state.pen.shown = false;
    state.strokes.push([inLink(place)]);
    readStrokes();
  },
  penMove(places) {
    const stroke = state.strokes.at(-1);
    for (const { x, y } of places.map(inLink)) {
      if (Math.hypot(x - stroke.at(-1).x, y - stroke.at(-1).y) > 0.01) stroke.push({ x, y });
    }
    readStrokes();
  },
  clear() {
    state.strokes = [];
    state.pen.down = false;
    read(null);
  },
  undo() {
    if (!state.strokes.pop()) return;
    state.pen.down = false;
    readStrokes();
  },
  test(n = state.nextTest++ * 7 % PAGE.labels.length) { // one class after the other
    state.strokes = [];
    read({ kind: "test", levels: testImage(n), label: PAGE.labels[n], n });
  },
  picture(levels, others = 0) {
    state.message = !levels ? "Nothing in this picture stands out from its paper."
      : others ? `Of ${others + 1} things in this picture, the largest is taken.` : "";
    if (!levels) return;
    state.strokes = [];
    read({ kind: "picture", levels, label: null });
  },
  reread() { read(state.x); },

  // latents
  slide(index, value) {
    const z = state.z.slice();
    z[index] = value;
    go(z, "hand");
  },
  zero() { go(state.z.map(() => 0), "zero"); },
  place(z) { go(Float64Array.from(z), "map"); },
  link(z) { go(Float64Array.from(z), "link"); },
  again() { state.noises = [random.normals(state.model.zDim), ...state.noises.slice(0, -1)]; },
  drawn() {
    state.drawnPixels = state.drawnPixels ? null : random.uniforms(PIXELS);
  },

  // from here to another class along the line between the latents
  morph(label) {
    const from = state.z;
    go(from, "morph", label);
    state.morph = { from, to: targetOf(label), label, share: 0, playing: true };
  },
  share(share, playing = false) {
    const { from, to, label } = state.morph;
    go(from.map((a, d) => a + share * (to[d] - a)), "morph", label);
    state.morph = { from, to, label, share, playing };
  },

  // new images
  fresh(choice) {
    const { model } = state;
    const each = Array.from({ length: TILES }, () => {
      const label = choice ?? Math.floor(random.uniform() * PAGE.classes.length);
      if (label === "unit") return { z: random.normals(model.zDim), kind: "unit", label: null };
      return { z: drawLikely(model, label, random), kind: "new", label };
    });
    state.tiles = { choice, each };
  },
  take(n) {
    const { z, kind, label } = state.tiles.each[n];
    go(z, kind, label);
  },

  epoch(n) { state.moment = n; },

  challenge(n) {
    state.challenge = n;
    if (n === 0) ACTIONS.test(PAGE.labels.indexOf(4));
    if (n === 2) ACTIONS.clear();
  },
};

// ---- the address: model, challenge, paper and latents ------------------------------------------

// A place on the paper, 0..1, in the steps in which a link has it: two letters for each number.
const STEPS = 36 ** 2 - 1;
const toStep = (value) => Math.round(clamped(value, 0, 1) * STEPS);
const inLink = ({ x, y }) => ({ x: toStep(x) / STEPS, y: toStep(y) / STEPS });
const letters = ({ x, y }) => [x, y].map((v) => toStep(v).toString(36).padStart(2, "0")).join("");
const ofLetters = (text) => parseInt(text, 36) / STEPS;

function addressOf({ model, x, strokes, posterior, z, origin, challenge }) {
  const given = { m: MODELS.indexOf(model) };
  if (challenge !== null) given.c = challenge;
  if (x?.kind === "test") given.test = x.n;
  if (x?.kind === "picture") given.picture = Array.from(x.levels, (v) => v.toString(36)).join("");
  if (strokes.length) given.drawing = strokes.map((s) => s.map(letters).join("")).join("-");
  if (origin.kind !== "empty" && z !== posterior?.mean) {
    given.z = Array.from(z, (value) => Number(value.toFixed(3)));
  }
  return `#${Object.entries(given).map((pair) => pair.join("=")).join("&")}`;
}

// What each part of an address has to look like, and what it does.
const PARTS = {
  m: [/^\d$/, (text) => ACTIONS.model(Number(text))],
  c: [/^[0-2]$/, (text) => { state.challenge = Number(text); }],
  test: [/^\d{1,4}$/, (text) => ACTIONS.test(Number(text))],
  picture: [RegExp(`^[0-9a-z]{${PIXELS}}$`), (text) => {
    ACTIONS.picture(Uint8Array.from(text, (v) => clamped(parseInt(v, 36), 0, LEVELS - 1)));
  }],
  drawing: [/^([0-9a-z]{4})+(-([0-9a-z]{4})+)*$/, (text) => {
    state.strokes = text.split("-").map((stroke) => stroke.match(/.{4}/g)
      .map((place) => ({ x: ofLetters(place.slice(0, 2)), y: ofLetters(place.slice(2)) })));
    readStrokes();
  }],
  z: [/^-?\d{1,2}(\.\d+)?(,-?\d{1,2}(\.\d+)?)*$/, (text) => ACTIONS.link(text.split(","))],
};

// Does what an address says, or nothing if it does not fit this page; whether it did.
function follow(address) {
  const given = Object.fromEntries(new URLSearchParams(address.slice(1)));
  const { m = 0, test = 0, z } = given, model = MODELS[m];
  const fits = model && test < PAGE.labels.length && (!z || z.split(",").length === model.zDim)
    && Object.entries(given).every(([name, text]) => PARTS[name]?.[0].test(text));
  if (!fits) return false;
  ACTIONS.model(Number(m));
  ACTIONS.clear();
  state.challenge = null;
  for (const name in PARTS) if (name in given) PARTS[name][1](given[name]);
  return true;
}
