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
$("redraw").addEventListener("click", () => { now.noise = random.uniforms(PIXELS); render(); });
$("zero").addEventListener("click", () => show(now.z.map(() => 0), "all latents at 0"));
$("clear").addEventListener("click", clearPaper);
$("undo").addEventListener("click", () => { paper.strokes.pop(); readPaper(); });
$("test-image").addEventListener("click", takeTestImage);
$("check").addEventListener("click", tellCheck);
for (const button of document.querySelectorAll("[data-keep]")) {
  button.addEventListener("click", () => keep(button.dataset.keep, now.z));
}
new IntersectionObserver(([image]) => { $("back").hidden = image.isIntersecting; }).observe($("image"));
$("about").textContent = `Model: ${MODEL.name}, ${MODEL.zDim === 1 ? "one latent" : `${MODEL.zDim} latents`}, `
  + `${MODEL.dataset}. The averages are over ${MODEL.typical.images.toLocaleString("en")} test images.`;
$("prior-cost").hidden = MODEL.prior === null;
if (MODEL.points) makeMap();
takeTestImage();
$("classes").firstElementChild.click();
