// The map of a latent space of one or two dimensions.

"use strict";

const MAP_TILES = MODEL.zDim === 2 ? 20 : 12; // images per side

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
    const n = i * 157 % tiles; // all over the map; 157 has no divisor in common with 12 or 400
    const column = n % MAP_TILES, row = Math.floor(n / MAP_TILES);
    const shares = [(column + 0.5) / MAP_TILES, 1 - (row + 0.5) / rows];
    const z = axes.map((axis, d) => at(axis, shares[d]));
    paint(canvas, expectedLevels(decode(z)), { left: column * SIDE, top: row * SIDE });
  });
}

function drawPoints(axes) {
  const canvas = $("map-points"), context = canvas.getContext("2d"), { mean, labels } = MODEL.points;
  const means = floatsOf(mean), share = ({ low, high }, value) => (value - low) / (high - low);
  Object.assign(context, { font: `600 ${axes.length === 2 ? 20 : 11}px system-ui, sans-serif`, textAlign: "center", textBaseline: "middle" });
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
