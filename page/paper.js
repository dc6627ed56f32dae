// From strokes or a picture to an image as the data has them: 784 grey levels in 0..15.

const PEN = 2.6, BOX = 20; // pixels: the width of MNIST's strokes, the side of the box they are in
const SHARP = 8; // a pixel is the mean of 8x8
const LARGEST = 4096; // pixels of a picture's side that a canvas surely holds
const LOOKED_AT = 512, CELLS = 64, FAINT = 0.12, LIGHT = 127; // see reading/photo.py
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

// ---- a photo, as reading/photo.py reads it, step by step --------------------------------------

// The things on a photo or any picture, the one near the middle first; none where nothing stands
// out. A picture of 28x28 pixels is taken as it is.
function levelsOfPicture(bitmap) {
  const { grey, width, height } = greyOf(bitmap);
  if (width === SIDE && height === SIDE) return [toLevels(lightOnDark(grey).map((v) => v / 255))];
  const step = Math.ceil(Math.max(width, height) / LOOKED_AT);
  const wide = Math.floor(width / step), high = Math.floor(height / step);
  let seen = new Float64Array(wide * high);
  for (let y = 0; y < high * step; y++) {
    const row = Math.floor(y / step) * wide;
    for (let x = 0; x < wide * step; x++) {
      seen[row + Math.floor(x / step)] += grey[y * width + x] / step ** 2;
    }
  }
  let smooth = meanAround(seen, wide, 1);
  const radius = Math.max(1, Math.floor(Math.max(wide, high) / 7));
  const nearness = (n, sides) => 1 - ((n + 0.5) / sides * 2 - 1) ** 2;
  const moment = meanAround(smooth, wide, radius).reduce((sum, mean, i) => sum
    + nearness(i % wide, wide) * nearness(Math.floor(i / wide), high) * (smooth[i] - mean) ** 3, 0);
  if (moment < 0) [seen, smooth] = [seen, smooth].map((part) => part.map((value) => 255 - value));
  const paper = windowed(windowed(smooth, wide, radius, Math.min), wide, radius, Math.max);
  const overPaper = (value, i) => Math.max(0, value - paper[i]) / (256 - paper[i]);
  const ink = seen.map(overPaper), soft = smooth.map(overPaper), most = highest(soft);
  if (most < FAINT) return [];
  const side = Math.ceil(Math.max(wide, high) / CELLS), columns = Math.ceil(wide / side);
  const cells = ink.map((_, i) => {
    return Math.floor(Math.floor(i / wide) / side) * columns + Math.floor(i % wide / side);
  });
  const marked = new Float64Array(columns * Math.ceil(high / side));
  soft.forEach((value, i) => { if (value > 0.3 * most) marked[cells[i]] = 1; });
  return things(marked, columns).map((thing) => {
    const own = marked.map((_, cell) => Number(thing.includes(cell)));
    const near = windowed(own, columns, 1, Math.max);
    const peak = highest(soft.map((value, i) => value * near[cells[i]]));
    const stroke = (value, i) => near[cells[i]] * clamped((value / peak - 0.2) * 2, 0, 1);
    return fitted(ink.map(stroke), wide);
  });
}

// Grey levels 0..255 of a picture. What is transparent is background: light, if the rest is dark.
function greyOf(bitmap) {
  const shrink = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * shrink));
  const height = Math.max(1, Math.round(bitmap.height * shrink));
  const picture = makeBoard(width, height);
  picture.drawImage(bitmap, 0, 0, width, height);
  const { data } = picture.getImageData(0, 0, width, height);
  const grey = new Float64Array(width * height);
  for (let i = 0, n = 0; i < grey.length; i++, n += 4) {
    grey[i] = (19595 * data[n] + 38470 * data[n + 1] + 7471 * data[n + 2] + 32768) >> 16;
  }
  const opaque = (i) => data[4 * i + 3] / 255;
  const back = grey.reduce((sum, v, i) => sum + (v - LIGHT) * opaque(i), 0) <= 0 ? 255 : 0;
  const shown = grey.map((v, i) => Math.round(v * opaque(i) + back * (1 - opaque(i))));
  return { grey: shown, width, height };
}

function lightOnDark(grey) { // of 28x28 pixels
  const last = SIDE - 1, inside = (n) => n % SIDE > 0 && n % SIDE < last;
  const edge = grey.filter((_, i) => !(inside(i) && i > last && i < PIXELS - SIDE));
  const light = edge.filter((value) => value > LIGHT).length >= 0.75 * edge.length;
  return light ? grey.map((value) => 255 - value) : grey;
}

const highest = (values) => values.reduce((a, b) => Math.max(a, b), 0);

// What change makes of every row, and then of every column of that.
function alongBoth(values, wide, change) {
  const high = values.length / wide;
  for (const [lines, length, next, step] of [[wide, high, 1, wide], [high, wide, wide, 1]]) {
    const found = new Float64Array(values.length), line = new Float64Array(length);
    for (let n = 0; n < lines; n++) {
      for (let i = 0; i < length; i++) line[i] = values[n * next + i * step];
      change(line).forEach((value, i) => { found[n * next + i * step] = value; });
    }
    values = found;
  }
  return values;
}

function padded(line, before, after) {
  const found = new Float64Array(before + line.length + after).fill(line.at(-1));
  found.fill(line[0], 0, before).set(line, before);
  return found;
}

// Math.min or Math.max of all values up to a radius away.
const windowed = (values, wide, radius, best) => alongBoth(values, wide, (line) => {
  let found = padded(line, radius, radius);
  for (let size = 1, further; size < 2 * radius + 1; size += further) {
    further = Math.min(size, 2 * radius + 1 - size);
    const end = found.length - further; // each place then has the best of so many more
    for (let i = 0; i < end; i++) found[i] = best(found[i], found[i + further]);
    found = found.subarray(0, end);
  }
  return found;
});

const meanAround = (values, wide, radius) => alongBoth(values, wide, (line) => {
  const window = 2 * radius + 1, sums = padded(line, radius + 1, radius);
  for (let i = 1; i < sums.length; i++) sums[i] += sums[i - 1];
  return line.map((_, i) => (sums[i + window] - sums[i]) / window);
});

// Groups of touching cells, each with its strokes that stand apart, the one near the middle first.
function things(marked, columns) {
  const rows = marked.length / columns, left = new Set(), groups = [];
  marked.forEach((value, cell) => { if (value) left.add(cell); });
  const x = (cell) => cell % columns, y = (cell) => Math.floor(cell / columns);
  const box = (group) => {
    const xs = group.map(x), ys = group.map(y);
    return [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  };
  const atEdge = (group) => {
    const [l, r, t, b] = box(group);
    return l === 0 || t === 0 || r === columns - 1 || b === rows - 1;
  };
  const sideOf = ([l, r, t, b]) => Math.max(r - l, b - t) + 1;
  const weight = (group) => {
    const middle = (place) => 0.5 + group.reduce((sum, n) => sum + place(n), 0) / group.length;
    const away = Math.max(Math.abs(middle(x) / columns - 0.5), Math.abs(middle(y) / rows - 0.5));
    return group.length * (1 - 1.6 * away) * (atEdge(group) ? 0.02 : 1);
  };
  for (const cell of left) {
    const group = [cell];
    for (const here of group) {
      left.delete(here);
      for (let n = 0; n < 9; n++) {
        const toX = x(here) + n % 3 - 1, near = toX + columns * (y(here) + Math.floor(n / 3) - 1);
        if (toX >= 0 && toX < columns && left.delete(near)) group.push(near);
      }
    }
    groups.push(group);
  }
  const whole = [];
  for (const group of groups.sort((a, b) => weight(b) - weight(a))) {
    const [l, r, t, b] = box(group);
    const home = whole.find((thing) => {
      const [left, right, top, bottom] = box(thing), reach = Math.max(1, 0.2 * sideOf(box(thing)));
      const beside = Math.max(left - r, l - right, top - b, t - bottom) <= reach;
      return l >= left - reach && r <= right + reach && t >= top - reach && b <= bottom + reach
        || beside && 2 * (b - t) < bottom - top && !atEdge(group); // as the bar of a 5
    });
    if (home) home.push(...group); else whole.push(group);
  }
  if (!whole.length) return [];
  const [main, ...rest] = whole, least = weight(main) / 4, size = (sideOf(box(main)) + 1) / 2;
  const others = rest.filter((thing) => weight(thing) >= least && sideOf(box(thing)) >= size);
  return [main, ...others.sort((a, b) => box(a)[0] - box(b)[0])];
}

// Ink 0..1 into the box of 20x20 pixels, its centre of mass in the middle, as levels.
function fitted(ink, wide) {
  let left = wide, right = -1, top = ink.length, bottom = -1;
  ink.forEach((value, i) => {
    if (value <= 0.3) return;
    left = Math.min(left, i % wide);
    right = Math.max(right, i % wide);
    top = Math.min(top, Math.floor(i / wide));
    bottom = Math.floor(i / wide);
  });
  const sides = [right - left + 1, bottom - top + 1];
  const [width, height] = sides.map((n) => Math.max(1, Math.round(BOX * n / Math.max(...sides))));
  const rows = Array.from({ length: sides[1] },
    (_, y) => resized(ink.subarray((top + y) * wide + left, (top + y) * wide + right + 1), width));
  const columns = rows[0].map((_, x) => resized(rows.map((row) => row[x]), height));
  const small = columns.map((column) => column.map((value) => Math.max(0, value)));
  let total = 0, across = 0, down = 0, most = 0;
  small.forEach((column, x) => column.forEach((value, y) => {
    total += value;
    across += x * value;
    down += y * value;
    most = Math.max(most, value);
  }));
  const place = (sum, n) => clamped(Math.round(SIDE / 2 - sum / total), 0, SIDE - n);
  const toX = place(across, width), toY = place(down, height), image = new Float64Array(PIXELS);
  small.forEach((column, x) => column.forEach((value, y) => {
    image[(toY + y) * SIDE + toX + x] = Math.round(255 * value / most) / 255;
  }));
  return toLevels(image);
}

// A line in so many values, by Keys' cubic convolution as Pillow has it.
function resized(line, length) {
  const scale = line.length / length, wider = Math.max(1, scale);
  const cubic = (t) => (t < 1 ? (1.5 * t - 2.5) * t * t + 1
    : t < 2 ? ((-0.5 * t + 2.5) * t - 4) * t + 2 : 0);
  return Array.from({ length }, (_, n) => {
    const centre = (n + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - 2 * wider + 0.5));
    const end = Math.min(line.length, Math.floor(centre + 2 * wider + 0.5));
    let sum = 0, weights = 0;
    for (let i = first; i < end; i++) {
      const weight = cubic(Math.abs(i - centre + 0.5) / wider);
      sum += weight * line[i];
      weights += weight;
    }
    return sum / weights;
  });
}
