// The map of a latent space of one or two dimensions: the first latent runs to the right, the
// second one upwards.

const MAP_SIDE = 15; // images per side

// Where latents are on the map, as shares of its sides from the left and from below: about the
// percentiles of a bell curve as wide as that of all images.
const BELL = 1.702; // with it the logistic function is the normal distribution's, up to 0.01
const onMap = ({ typical }, z) => [z[0], z[1] ?? 0]
  .map((value) => 1 / (1 + Math.exp(-BELL * value / typical.spread)));

// The latents at a place of the map.
const atPlace = ({ zDim, typical }, shares) => Array.from({ length: zDim }, (_, d) => {
  const share = clamped(shares[d], 0.003, 0.997);
  return typical.spread * Math.log(share / (1 - share)) / BELL;
});

const colourOf = (label) => PAGE.colours[label % PAGE.colours.length]; // as in the pictures

// Draws the images of the map, here and there at first, so that all of it is there soon.
function paintMap(model, canvas) {
  const rows = model.zDim === 2 ? MAP_SIDE : 1, tiles = MAP_SIDE * rows;
  canvas.width = MAP_SIDE * SIDE;
  canvas.height = rows * SIDE;
  canvas.style.aspectRatio = `${MAP_SIDE} / ${rows}`;
  return inSlices("map", tiles, (i) => {
    const n = i * 157 % tiles; // all over the map; 157 has no divisor in common with 15 or 225
    const column = n % MAP_SIDE, row = Math.floor(n / MAP_SIDE);
    const z = atPlace(model, [(column + 0.5) / MAP_SIDE, 1 - (row + 0.5) / rows]);
    paint(canvas, expectedLevels(decode(model, z)), { left: column * SIDE, top: row * SIDE });
  });
}

// Test images as dots where their latents are; on a line they are spread out in height.
function paintDots(model, canvas) {
  const plane = model.zDim === 2, context = canvas.getContext("2d");
  canvas.width = 1120;
  canvas.height = plane ? 1120 : 56;
  canvas.style.aspectRatio = `${canvas.width} / ${canvas.height}`;
  const means = floatsOf(model.points.mean);
  context.strokeStyle = "#fffc"; // around dark colours on black
  model.points.labels.forEach((label, n) => {
    const [right, up] = onMap(model, means.subarray(n * model.zDim, (n + 1) * model.zDim));
    context.fillStyle = colourOf(label);
    context.beginPath();
    context.arc(right * canvas.width, (1 - (plane ? up : 0.1 + 0.8 * (n % 7) / 6)) * canvas.height,
      plane ? 6 : 4, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  });
}
