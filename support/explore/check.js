// The check of this page's numbers against PyTorch's, which explore.py wrote into it.

"use strict";

// The largest differences between this page's numbers and PyTorch's, on the inputs in the page.
async function selfTest() {
  const { check } = MODEL, count = MODEL.labels.length, D = MODEL.zDim;
  const [noise, mean, logStd, logits] = ["noise", "mean", "logStd", "logits"].map((name) => floatsOf(check[name]));
  const mixtures = check.mixtures === null ? null : floatsOf(check.mixtures);
  const worst = { inputs: 0, encoder: 0, decoder: 0, bpd: 0, prior: 0 };
  const compare = (name, value, truth) => { // NaN must not pass
    const difference = Math.abs(value - truth);
    worst[name] = difference <= worst[name] ? worst[name] : difference;
  };
  let next = 0, nextMixture = 0; // in the rows of logits and mixtures
  await inSlices("check", count, (n) => {
    const levels = TEST_IMAGES.subarray(n * PIXELS, (n + 1) * PIXELS), own = noise.subarray(n * D, (n + 1) * D);
    const cost = loss(levels, own);
    const z = Float64Array.from(own, (e, d) => mean[n * D + d] + Math.exp(logStd[n * D + d]) * e);
    const decoded = decode(z);
    for (let d = 0; d < D; d++) {
      compare("encoder", cost.mean[d], mean[n * D + d]);
      compare("encoder", cost.logStd[d], logStd[n * D + d]);
    }
    for (let pixel = 0; pixel < PIXELS; pixel++) {
      if ((pixel + n) % check.every) continue;
      for (let v = 0; v < LEVELS; v++) compare("decoder", decoded[pixel * LEVELS + v], logits[next++]);
    }
    compare("bpd", cost.bpd, check.bpd[n]);
    if (mixtures) {
      const mixture = conditionals(MODEL.labels[n]);
      for (let i = 0; i < D; i++) {
        const { logWeights, means, logStds } = mixture(i, z);
        for (const value of [...logWeights, ...means, ...logStds]) compare("prior", value, mixtures[nextMixture++]);
      }
      compare("prior", logPrior(z, MODEL.labels[n]), check.logPrior[n]);
    }
    worst.inputs++;
  });
  const compared = worst.inputs === count && next === logits.length && nextMixture === (mixtures?.length ?? 0);
  worst.passed = compared && worst.bpd < 1e-3
    && ["encoder", "decoder", "prior"].every((name) => worst[name] < 2e-2);
  return worst;
}

async function tellCheck() {
  $("checked").textContent = "computing …";
  const { passed, inputs, encoder, decoder, bpd, prior } = await selfTest();
  $("checked").textContent = `${passed ? "The same" : "NOT the same"}: largest differences on ${inputs} test images `
    + `${encoder.toExponential(1)} in the encoder's means and log stds, ${decoder.toExponential(1)} in the decoder's `
    + `logits, ${bpd.toExponential(1)} in bits per dimension`
    + (MODEL.prior ? `, ${prior.toExponential(1)} in the learned prior.` : ".");
}
