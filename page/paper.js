// Draw your own: strokes on the paper become an image as the data has them.

"use strict";

const PEN = 2.6, BOX = 20; // pixels: the width of MNIST's strokes, the side of the box they are in
const paper = { // places are in 0..1
  strokes: [], // lists of {x, y}
  image: false, // whether an image lies on the paper in place of strokes
  pen: { x: 0.5, y: 0.5, down: false, shown: false }, // the keyboard's
};

function drawPaper() {
  const canvas = $("paper"), context = canvas.getContext("2d"), { strokes, pen } = paper;
  const size = canvas.width;
  context.clearRect(0, 0, size, size);
  if (paper.image) {
    context.imageSmoothingEnabled = false;
    context.drawImage($("seen"), 0, 0, size, size);
  }
  if (!strokes.length) {
    Object.assign(context, { font: "24px system-ui, sans-serif", textAlign: "center" });
    context.fillStyle = "#a8a8b0";
    context.fillText("draw here", size / 2, 36);
  }
  context.strokeStyle = "#fff";
  trace(context, strokes, PEN / SIDE * size, ({ x, y }) => [x * size, y * size]);
  if (pen.shown) {
    context.beginPath();
    context.arc(pen.x * size, pen.y * size, pen.down ? 8 : 14, 0, 2 * Math.PI);
    Object.assign(context, { strokeStyle: "#ffd34d", lineWidth: 3 });
    context.stroke();
  }
}

// Draws strokes as lines; place turns a point of theirs into one of the canvas.
function trace(context, strokes, lineWidth, place) {
  Object.assign(context, { lineWidth, lineCap: "round", lineJoin: "round" });
  for (const stroke of strokes) {
    const [x, y] = place(stroke[0]);
    context.beginPath();
    context.moveTo(x + 0.01, y); // a dot, too, is a line of some length
    for (const point of stroke) context.lineTo(...place(point));
    context.stroke();
  }
}

// Strokes to 784 grey levels, as MNIST's images were made: fitted into a box of 20x20 pixels, the
// centre of mass in the middle of 28x28, min(round(16 x), 15). The strokes keep MNIST's width.
function rasterized(strokes) {
  const points = strokes.flat(), xs = points.map(({ x }) => x), ys = points.map(({ y }) => y);
  const left = Math.min(...xs), right = Math.max(...xs);
  const top = Math.min(...ys), bottom = Math.max(...ys);
  const scale = (BOX - PEN) / Math.max(right - left, bottom - top, 0.02);
  const inked = (shiftX, shiftY) => inkOf(strokes, ({ x, y }) => [
    (x - (left + right) / 2) * scale + SIDE / 2 + shiftX,
    (y - (top + bottom) / 2) * scale + SIDE / 2 + shiftY,
  ]);
  const ink = inked(0, 0), total = ink.reduce((sum, value) => sum + value);
  const toMiddle = (place) => {
    const centre = ink.reduce((sum, value, i) => sum + value * place(i), 0) / total;
    return Math.round(SIDE / 2 - centre);
  };
  const centred = inked(toMiddle((i) => i % SIDE), toMiddle((i) => Math.floor(i / SIDE)));
  return centred.map((value) => Math.min(Math.round(LEVELS * value), LEVELS - 1));
}

// How much of each of 784 pixels the strokes cover, 0..1; place gives a point's place in pixels.
const SHARP = 8; // a pixel is the mean of 8x8
const board = make("canvas", { width: SIDE * SHARP, height: SIDE * SHARP })
  .getContext("2d", { willReadFrequently: true });
function inkOf(strokes, place) {
  const side = SIDE * SHARP, ink = new Float64Array(PIXELS);
  board.clearRect(0, 0, side, side);
  board.strokeStyle = "#fff";
  trace(board, strokes, PEN * SHARP, (point) => place(point).map((value) => value * SHARP));
  const { data } = board.getImageData(0, 0, side, side);
  for (let n = 0; n < side * side; n++) {
    const x = Math.floor((n % side) / SHARP), y = Math.floor(n / side / SHARP);
    ink[y * SIDE + x] += data[4 * n + 3] / 255 / SHARP ** 2; // the fourth is the opacity
  }
  return ink;
}

// Encodes an image, whose latents become the current ones.
function read(levels, source) {
  paint($("seen"), levels);
  drawPaper();
  const posterior = encode(levels);
  show(posterior.mean, source, { levels, ...posterior });
}

const readPaper = oncePerFrame(() => {
  paper.image = false;
  if (paper.strokes.length) {
    read(rasterized(paper.strokes), "your drawing, decoded");
  } else {
    drawPaper();
    for (const id of ["seen", "again"]) paint($(id), new Float64Array(PIXELS));
    for (const part of ["rec", "reg", "bpd"]) $(`own-${part}`).textContent = "–";
    if (now.read) show(now.z, BY_HAND);
  }
});

function listenToPaper() {
  const canvas = $("paper"), { strokes, pen } = paper;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return {
      x: (event.clientX - box.left) / box.width,
      y: (event.clientY - box.top) / box.height,
    };
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
    const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    if (event.key in steps) {
      const [x, y] = steps[event.key];
      pen.x = clamped(pen.x + x / 25, 0, 1);
      pen.y = clamped(pen.y + y / 25, 0, 1);
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
  read(testImage(n), `a test image (${MODEL.classes[MODEL.labels[n]]}), decoded`);
}
