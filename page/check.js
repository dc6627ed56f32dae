// The check of this page's numbers against PyTorch's, which explore.py wrote into it.

"use strict";

// The largest differences between this page's numbers and PyTorch's, on the inputs in the page:
// of all models, and of every epoch that was kept.
async function selfTest() {
  const worst = { models: 0, epochs: 0, images: 0, encoder: 0, decoder: 0, bpd: 0, prior: 0 };
  for (const model of MODELS) {
    await checkNetworks(model, worst, (n, z) => checkPrior(model, n, z, worst));
    worst.models++;
    for (const then of model.epochs) {
      await checkNetworks(then, worst);
      worst.epochs++;
    }
  }
  worst.passed = worst.bpd < 1e-3
    && ["encoder", "decoder", "prior"].every((name) => worst[name] < 2e-2);
  return worst;
}

function compare(worst, name, value, truth) { // NaN must not pass
  const difference = Math.abs(value - truth);
  worst[name] = difference <= worst[name] ? worst[name] : difference;
}

async function checkNetworks(model, worst, checkMore = () => {}) {
  const { check, zDim } = model;
  const [noise, mean, logStd, logits] = ["noise", "mean", "logStd", "logits"]
    .map((name) => floatsOf(check[name]));
  let nextLogit = 0;
  await inSlices("check", check.images, (n) => {
    const levels = testImage(n), posterior = encode(model, levels);
    const ofImage = (values) => values.subarray(n * zDim, (n + 1) * zDim);
    ofImage(mean).forEach((value, d) => compare(worst, "encoder", posterior.mean[d], value));
    ofImage(logStd).forEach((value, d) => compare(worst, "encoder", posterior.logStd[d], value));
    compare(worst, "bpd", loss(model, levels, posterior, ofImage(noise)).bpd, check.bpd[n]);

    const truth = { mean: Float64Array.from(ofImage(mean)), logStd: ofImage(logStd) };
    const z = drawOf(truth, ofImage(noise)), decoded = decode(model, z);
    for (let pixel = 0; pixel < PIXELS; pixel++) {
      if ((pixel + n) % check.every) continue;
      for (let v = 0; v < LEVELS; v++) {
        compare(worst, "decoder", decoded[pixel * LEVELS + v], logits[nextLogit++]);
      }
    }
    checkMore(n, z);
    worst.images++;
  });
  if (nextLogit !== logits.length) worst.decoder = NaN; // not all were looked at
}

function checkPrior(model, n, z, worst) {
  const { components } = model.prior, count = 3 * components * model.zDim; // numbers per image
  const truth = floatsOf(model.check.mixtures).subarray(n * count, (n + 1) * count);
  const mixture = conditionals(model, PAGE.labels[n]);
  z.forEach((_, i) => {
    const { logWeights, means, logStds } = mixture(i, z);
    [...logWeights, ...means, ...logStds].forEach((value, k) => {
      compare(worst, "prior", value, truth[3 * components * i + k]);
    });
  });
  compare(worst, "prior", logPrior(model, z, PAGE.labels[n]), model.check.logPrior[n]);
}

async function tellCheck() {
  $("checked").textContent = "computing …";
  $("check").disabled = true; // or one run would end the other
  const worst = await selfTest(), told = (name) => worst[name].toExponential(1);
  $("check").disabled = false;
  $("checked").textContent = `${worst.passed ? "The same" : "NOT the same"}: largest differences in `
    + `${worst.models} models and ${worst.epochs} kept epochs, on ${worst.images} images: `
    + `${told("encoder")} in the encoders' means and log stds, ${told("decoder")} in the decoders' `
    + `logits, ${told("bpd")} in bits per pixel, ${told("prior")} in the learned priors.`;
}
