// The check of this page's numbers against PyTorch's, which explore.py wrote into it.

// The largest differences between this page's numbers and PyTorch's for the images in the page.
async function selfTest() {
  const worst = { models: 0, images: 0, encoder: 0, decoder: 0, bpd: 0, prior: 0 };
  for (const model of MODELS) {
    const { check, zDim } = model, truth = (name) => floatsOf(check[name]);
    const each = ["noise", "mean", "logStd", "logits", "mixtures"].map(truth);
    const compare = (name, ours, value) => { // NaN must not pass
      const difference = Math.abs(ours - value);
      worst[name] = difference <= worst[name] ? worst[name] : difference;
    };
    await inSlices("check", check.images, (n) => {
      const [noise, mean, logStd, logits, mixtures] = each.map((values) =>
        values.subarray(n * values.length / check.images, (n + 1) * values.length / check.images));
      const levels = testImage(n), posterior = encode(model, levels), label = PAGE.labels[n];
      mean.forEach((value, d) => compare("encoder", posterior.mean[d], value));
      logStd.forEach((value, d) => compare("encoder", posterior.logStd[d], value));
      compare("bpd", loss(model, levels, posterior, noise).bpd, check.bpd[n]);
      const z = drawOf({ mean: [...mean], logStd }, noise), decoded = decode(model, z);
      logits.forEach((value, i) => { // of every 16th pixel, of other ones for every image
        const pixel = Math.floor(i / LEVELS) * check.every + n % check.every;
        compare("decoder", decoded[pixel * LEVELS + i % LEVELS], value);
      });
      const mixture = conditionals(model, label), { length } = mixtures;
      z.forEach((_, i) => Object.values(mixture(i, z)).forEach((values, part) =>
        values.forEach((value, k) =>
          compare("prior", value, mixtures[i * length / zDim + part * values.length + k]))));
      compare("prior", logPrior(model, z, label), check.logPrior[n]);
      worst.images++;
    });
    worst.models++;
  }
  worst.passed = worst.bpd < 1e-3
    && ["encoder", "decoder", "prior"].every((name) => worst[name] < 2e-2);
  return worst;
}

async function tellCheck() {
  $("checked").textContent = "computing …";
  $("check").disabled = true; // or one run would end the other
  const worst = await selfTest(), told = (name) => worst[name].toExponential(1);
  $("check").disabled = false;
  $("checked").textContent = `${worst.passed ? "The same" : "NOT the same"}: on ${worst.images} `
    + `images, the largest differences are ${told("encoder")} in the encoders' means and log stds, `
    + `${told("decoder")} in the decoders' logits, ${told("bpd")} in bits per pixel, `
    + `${told("prior")} in the learned priors.`;
}
