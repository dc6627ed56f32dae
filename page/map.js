// The map of a latent space of one or two dimensions.

"use strict";

const MAP_TILES = MODEL.zDim === 2 ? 20 : 12; // images per side

// The first latent runs to the right, the second one upwards; both from low to high.
const axes = MODEL.zDim > 2 ? [] : Array.from({ length: MODEL.zDim }, (_, d) => {
  const { low, high } = MODEL.typical.latents.find(({ index }) => index === d);
  return {
    low, high,
    valueAt: (share) => low + clamped(share, 0, 1) * (high - low),
    shareOf: (value) => (value - low) / (high - low),
  };
});

function makeMap() {
  const rows = axes.length === 2 ? MAP_TILES : 1, canvas = $("map-image");
  const goTo = (z) => show(z, "from the map");
  $("map").hidden = false;
  $("map-up").hidden = axes.length === 1;
  for (const [id, sharpness] of [["map-image", 1], ["map-points", 2]]) {
    $(id).width = MAP_TILES * SIDE * sharpness;
    $(id).height = rows * SIDE * sharpness;
    $(id).style.aspectRatio = `${MAP_TILES} / ${rows}`;
  }
  const follow = (event) => {
    const box = canvas.getBoundingClientRect();
    const right = (event.clientX - box.left) / box.width;
    const up = 1 - (event.clientY - box.top) / box.height;
    goTo(axes.map((axis, d) => axis.valueAt([right, up][d])));
  };
  const field = canvas.parentElement;
  field.addEventListener("pointerdown", (event) => {
    field.setPointerCapture(event.pointerId);
    follow(event);
  });
  field.addEventListener("pointermove", (event) => {
    if (field.hasPointerCapture(event.pointerId)) follow(event);
  });
  $("map-place").addEventListener("keydown", (event) => {
    const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (!(event.key in steps)) return;
    event.preventDefault();
    goTo(axes.map(({ low, high }, d) => clamped(now.z[d] + 0.05 * steps[event.key][d], low, high)));
  });
  $("map-show").addEventListener("change", () => {
    $("map-points").hidden = !$("map-show").checked;
  });
  drawPoints();
  const tiles = MAP_TILES * rows;
  return inSlices("map", tiles, (i) => {
    const n = i * 157 % tiles; // all over the map; 157 has no divisor in common with 12 or 400
    const column = n % MAP_TILES, row = Math.floor(n / MAP_TILES);
    const middle = [(column + 0.5) / MAP_TILES, 1 - (row + 0.5) / rows];
    const z = axes.map((axis, d) => axis.valueAt(middle[d]));
    paint(canvas, expectedLevels(decode(z)), { left: column * SIDE, top: row * SIDE });
  });
}

// The labels of test images where their latents are; on a line they are spread out in height.
function drawPoints() {
  const canvas = $("map-points"), context = canvas.getContext("2d");
  const means = floatsOf(MODEL.points.mean), plane = axes.length === 2;
  Object.assign(context, {
    font: `600 ${plane ? 20 : 11}px system-ui, sans-serif`,
    textAlign: "center", textBaseline: "middle",
  });
  MODEL.points.labels.forEach((label, n) => {
    const right = axes[0].shareOf(means[n * axes.length]);
    const up = plane ? axes[1].shareOf(means[2 * n + 1]) : 0.1 + 0.8 * (n % 7) / 6;
    context.fillStyle = `hsl(${36 * label} 90% ${label % 2 ? 68 : 78}%)`;
    context.fillText(label, right * canvas.width, (1 - up) * canvas.height);
  });
}

function placeOnMap() {
  if (!axes.length) return;
  const [right, up = 0.5] = axes.map((axis, d) => clamped(axis.shareOf(now.z[d]), 0, 1));
  $("map-place").style.left = `${100 * right}%`;
  $("map-place").style.top = `${100 * (1 - up)}%`;
}
