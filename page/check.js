// The check of this page's numbers against PyTorch's, which explore.py wrote into it.

"use strict";

// The largest differences between this page's numbers and PyTorch's, on the inputs in the page.
async function selfTest() {
  const { check, labels, zDim } = MODEL, count = labels.length;
  const [noise, mean, logStd, logits, mixtures] =
    ["noise", "mean", "logStd", "logits", "mixtures"].map((name) => floatsOf(check[name]));
  const worst = { inputs: 0, encoder: 0, decoder: 0, bpd: 0, prior: 0 };
  const compare = (name, value, truth) => { // NaN must not pass
    const difference = Math.abs(value - truth);
    worst[name] = difference <= worst[name] ? worst[name] : difference;
  };
  let nextLogit = 0, nextMixture = 0;
  await inSlices("check", count, (n) => {
    const levels = testImage(n), posterior = encode(levels);
    const ofImage = (values) => values.subarray(n * zDim, (n + 1) * zDim);
    ofImage(mean).forEach((value, d) => compare("encoder", posterior.mean[d], value));
    ofImage(logStd).forEach((value, d) => compare("encoder", posterior.logStd[d], value));
    compare("bpd", loss(levels, posterior, ofImage(noise)).bpd, check.bpd[n]);

    const z = Float64Array.from(
      ofImage(noise), (e, d) => ofImage(mean)[d] + Math.exp(ofImage(logStd)[d]) * e);
    const decoded = decode(z);
    for (let pixel = 0; pixel < PIXELS; pixel++) {
      if ((pixel + n) % check.every) continue;
      for (let v = 0; v < LEVELS; v++) {
        compare("decoder", decoded[pixel * LEVELS + v], logits[nextLogit++]);
      }
    }
    const mixture = conditionals(labels[n]);
    for (let i = 0; i < zDim; i++) {
      const { logWeights, means, logStds } = mixture(i, z);
      for (const value of [...logWeights, ...means, ...logStds]) {
        compare("prior", value, mixtures[nextMixture++]);
      }
    }
    compare("prior", logPrior(z, labels[n]), check.logPrior[n]);
    worst.inputs++;
  });
  const all = worst.inputs === count && nextLogit === logits.length
    && nextMixture === mixtures.length;
  worst.passed = all && worst.bpd < 1e-3
    && ["encoder", "decoder", "prior"].every((name) => worst[name] < 2e-2);
  return worst;
}

async function tellCheck() {
  $("checked").textContent = "computing …";
  const worst = await selfTest(), told = (name) => worst[name].toExponential(1);
  $("checked").textContent = `${worst.passed ? "The same" : "NOT the same"}: largest differences on `
    + `${worst.inputs} test images ${told("encoder")} in the encoder's means and log stds, `
    + `${told("decoder")} in the decoder's logits, ${told("bpd")} in bits per dimension, `
    + `${told("prior")} in the learned prior.`;
}
