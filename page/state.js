// What is true now, in one object, and all that can change it. Nothing here draws: whoever calls an
// action calls redraw() after it, and draw() in draw.js shows the whole state.

"use strict";

const PAGE = JSON.parse(document.getElementById("model").textContent);
const MODELS = PAGE.models.map(unpackedModel);
const LEARNER = MODELS.find((model) => model.epochs.length); // whose epochs are in the page
const TEST_IMAGES = bytesOf(PAGE.images);
const TILES = 24;
const MORPH_SECONDS = 2.5, EPOCH_SECONDS = 0.45;
const random = randomStream(42); // of all that is drawn by clicks

function unpackedModel(described) {
  const { encoder, decoder, prior, epochs, ...model } = described;
  const networks = withWeights({ encoder, decoder, prior }, unpacked(model.weights));
  return {
    ...model, ...networks,
    noise: randomStream(1).normals(model.zDim), // of the z that costs come from, the same for all x
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
  origin: { kind: "zero" }, // where z is from: {kind, label}
  morph: null,      // {from, to, label, share, playing}
  drawnPixels: null, // noise, where grey levels are drawn; null for the mean
  tiles: { choice: null, each: [] }, // choice: a class, null for any, "unit" for N(0, I)
  dots: true,       // on the map
  moment: 0, learning: false, // of LEARNER: the epoch that is shown, whether it goes on
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
  if (x === null) go(new Float64Array(state.model.zDim), "zero");
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
    read(state.x);
    ACTIONS.fresh(state.tiles.choice);
  },

  // paper
  penDown(place) {
    state.pen.shown = false;
    state.strokes.push([place]);
    readStrokes();
  },
  penMove(places) {
    state.strokes.at(-1).push(...places);
    readStrokes();
  },
  clear() {
    state.strokes = [];
    state.pen.down = false;
    read(null);
  },
  undo() {
    state.strokes.pop();
    state.pen.down = false;
    readStrokes();
  },
  test() {
    const n = state.nextTest++ * 7 % PAGE.labels.length; // one class after the other
    state.strokes = [];
    read({ kind: "test", levels: testImage(n), label: PAGE.labels[n] });
  },
  picture(levels) {
    if (levels === null) {
      state.message = "Nothing in this picture stands out from its paper.";
      return;
    }
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

  dots(shown) { state.dots = shown; },

  // training
  epoch(n) {
    state.moment = n;
    state.learning = false;
  },
  play() {
    if (!state.learning && state.moment === LEARNER.epochs.length - 1) state.moment = 0;
    state.learning = !state.learning;
  },
  learn() { // one step on
    state.moment = Math.min(state.moment + 1, LEARNER.epochs.length - 1);
    state.learning = state.moment < LEARNER.epochs.length - 1;
  },
};

// ---- latents in the address --------------------------------------------------------------------

const addressOf = (z) => `#z=${Array.from(z, (value) => Number(value.toFixed(3))).join(",")}`;

// The latents of an address and the number of the model that has as many; null without any.
function ofAddress(address) {
  const found = /^#z=(-?\d{1,2}(\.\d+)?(,-?\d{1,2}(\.\d+)?)*)$/.exec(address);
  if (!found) return null;
  const z = found[1].split(",").map(Number);
  const model = MODELS.findIndex(({ zDim }) => zDim === z.length);
  return model >= 0 ? { z, model } : null;
}
