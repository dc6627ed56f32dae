// What happens first.

"use strict";

makeSliders();
makeClasses();
makeStrip();
listenToPaper();
for (const input of document.querySelectorAll("input[name=mode]")) {
  input.addEventListener("change", () => {
    now.mode = input.value;
    $("redraw").disabled = now.mode === "expected";
    render();
  });
}
$("redraw").addEventListener("click", () => {
  now.noise = random.uniforms(PIXELS);
  render();
});
$("zero").addEventListener("click", () => show(now.z.map(() => 0), "all latents at 0"));
$("clear").addEventListener("click", clearPaper);
$("undo").addEventListener("click", () => {
  paper.strokes.pop();
  readPaper();
});
$("test-image").addEventListener("click", takeTestImage);
$("check").addEventListener("click", tellCheck);
for (const button of document.querySelectorAll(".slot")) {
  button.addEventListener("click", () => keep(button.dataset.keep, now.z));
}
// The small image leads back to the large one, and is gone where that, or the paper, is in view.
const inView = new Set();
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inView.add(target); else inView.delete(target);
  }
  $("back").hidden = inView.size > 0;
});
for (const id of ["image", "paper"]) observer.observe($(id));
const latents = MODEL.zDim === 1 ? "one latent" : `${MODEL.zDim} latents`;
$("about").textContent = `Model: ${MODEL.name}, ${latents}, ${MODEL.dataset}. `
  + `The averages are over ${MODEL.typical.images.toLocaleString("en")} test images.`;
$("average").textContent = MODEL.typical.bpd.toFixed(3);
if (MODEL.points) makeMap();
takeTestImage();
for (const [slot, label] of [["A", 2], ["B", 6]]) {
  keep(slot, encode(testImage(MODEL.labels.indexOf(label))).mean);
}
$("classes").firstElementChild.click();
