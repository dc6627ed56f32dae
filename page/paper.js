// From strokes or a picture to an image as the data has them: 784 grey levels in 0..15.

"use strict";

const PEN = 2.6, BOX = 20; // pixels: the width of MNIST's strokes, the side of the box they are in
const SHARP = 8; // a pixel is the mean of 8x8
const LARGEST = 1024; // pixels of a picture's side that are looked at
const board = makeBoard(SIDE * SHARP, SIDE * SHARP);

function makeBoard(width, height) {
  return new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
}

// Draws strokes, lists of {x, y}, as lines; place turns a point of theirs into one of the canvas.
function trace(context, strokes, lineWidth, place) {
  Object.assign(context, { lineWidth, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
  for (const stroke of strokes) {
    const [x, y] = place(stroke[0]);
    context.beginPath();
    context.moveTo(x + 0.01, y); // a dot, too, is a line of some length
    for (const point of stroke) context.lineTo(...place(point));
    context.stroke();
  }
}

// What draw(shiftX, shiftY) puts on the board, as the ink of 784 pixels, 0..1.
function inkOf(draw, shiftX, shiftY) {
  const side = SIDE * SHARP, ink = new Float64Array(PIXELS);
  board.setTransform(1, 0, 0, 1, 0, 0);
  board.clearRect(0, 0, side, side);
  board.setTransform(SHARP, 0, 0, SHARP, shiftX * SHARP, shiftY * SHARP);
  draw(board);
  const { data } = board.getImageData(0, 0, side, side);
  for (let n = 0; n < side * side; n++) {
    const x = Math.floor((n % side) / SHARP), y = Math.floor(n / side / SHARP);
    ink[y * SIDE + x] += data[4 * n + 3] / 255 / SHARP ** 2; // the fourth is the opacity
  }
  return ink;
}

const toLevels = (ink) => ink.map((value) => Math.min(Math.round(LEVELS * value), LEVELS - 1));

// As MNIST's images were made: what fills a box of 20x20 pixels gets its centre of mass into the
// middle of 28x28, then min(round(16 x), 15).
function centred(draw) {
  const ink = inkOf(draw, 0, 0), total = ink.reduce((sum, value) => sum + value);
  const toMiddle = (place) => {
    const centre = ink.reduce((sum, value, i) => sum + value * place(i), 0) / total;
    return Math.round(SIDE / 2 - centre);
  };
  const right = toMiddle((i) => i % SIDE), down = toMiddle((i) => Math.floor(i / SIDE));
  return toLevels(inkOf(draw, right, down));
}

// Strokes with places in 0..1, which keep the width of MNIST's.
function levelsOfStrokes(strokes) {
  const points = strokes.flat(), xs = points.map(({ x }) => x), ys = points.map(({ y }) => y);
  const left = Math.min(...xs), right = Math.max(...xs);
  const top = Math.min(...ys), bottom = Math.max(...ys);
  const scale = (BOX - PEN) / Math.max(right - left, bottom - top, 0.02);
  return centred((context) => trace(context, strokes, PEN, ({ x, y }) => [
    (x - (left + right) / 2) * scale + SIDE / 2,
    (y - (top + bottom) / 2) * scale + SIDE / 2,
  ]));
}

// A photo or any picture: dark ink on light paper or the other way round. One of 28x28 pixels is
// taken as it is. Returns null where there is no ink.
function levelsOfPicture(bitmap) {
  const shrink = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * shrink));
  const height = Math.max(1, Math.round(bitmap.height * shrink));
  const picture = makeBoard(width, height);
  picture.fillStyle = "#fff"; // what is transparent is paper
  picture.fillRect(0, 0, width, height);
  picture.drawImage(bitmap, 0, 0, width, height);
  const pixels = picture.getImageData(0, 0, width, height), { data } = pixels;
  const grey = Float64Array.from({ length: width * height },
    (_, i) => (0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]) / 255);
  if (width === SIDE && height === SIDE) {
    return toLevels(paperIsLight(grey, width) ? grey.map((value) => 1 - value) : grey);
  }

  const ink = withoutPaper(grey, width);
  let left = width, right = -1, top = height, bottom = -1;
  ink.forEach((value, i) => {
    if (value < 0.1) return;
    const x = i % width, y = Math.floor(i / width);
    left = Math.min(left, x);
    right = Math.max(right, x);
    top = Math.min(top, y);
    bottom = y;
  });
  if (right < 0) return null;
  ink.forEach((value, i) => data.set([255, 255, 255, 255 * value], 4 * i));
  picture.putImageData(pixels, 0, 0);
  const scale = BOX / Math.max(right - left + 1, bottom - top + 1);
  return centred((context) => {
    context.imageSmoothingQuality = "high";
    context.drawImage(picture.canvas, SIDE / 2 - (left + right + 1) / 2 * scale,
      SIDE / 2 - (top + bottom + 1) / 2 * scale, width * scale, height * scale);
  });
}

const median = (values) => values.slice().sort()[values.length >> 1];

function paperIsLight(grey, width) {
  const edge = grey.filter((_, i) => {
    const x = i % width;
    return x === 0 || x === width - 1 || i < width || i >= grey.length - width;
  });
  return median(edge) > 0.5;
}

// Ink as 0..1: how far a pixel is from the paper, half-way to the darkest ink being the middle of
// the edge. Paper is what most of the picture is; shadows on it lie within the first third.
function withoutPaper(grey, width) {
  const light = paperIsLight(grey, width), paper = median(grey);
  const distance = grey.map((value) => Math.max(0, light ? paper - value : value - paper));
  const most = distance.slice().sort()[Math.floor(0.995 * (distance.length - 1))];
  if (most < 0.15) return new Float64Array(grey.length); // nothing stands out
  return distance.map((value) => Math.min(1, Math.max(0, (value / most - 0.33) / 0.34)));
}
