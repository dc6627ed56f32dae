// Draw your own: strokes on the paper become an image as the data has them.

"use strict";

const PEN = 2.6, BOX = 20; // pixels: the width of MNIST's strokes, the side of the box they are in
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
    if (now.own) show(now.z, BY_HAND);
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
  read(TEST_IMAGES.subarray(n * PIXELS, (n + 1) * PIXELS), `a test image (${MODEL.classes[MODEL.labels[n]]}), decoded`);
}
