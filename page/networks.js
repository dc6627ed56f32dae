// The networks and the maths of the page. explore.py writes each network as a list of layers, read
// from the PyTorch model itself; here stands one function for each kind of layer. Nothing here
// knows the page.
// Feature maps are {channels, height, width, data} with the channels innermost, plain vectors are
// arrays. Arithmetic is in 64 bits: JavaScript's own numbers, and the fastest here.

"use strict";

const SIDE = 28, PIXELS = SIDE * SIDE; // LEVELS, how many grey levels there are, the page says
const silu = (x) => x / (1 + Math.exp(-x));

// rows [M][K] times columns [N][K], plus a bias per row: result [N][M]. Convolutions of all kinds
// and linear layers come down to this. Blocks of 4 rows and 2 columns let every number that is
// fetched be used several times, which makes it more than twice as fast as plain dot products.
function product(rows, columns, bias, M, K, N) {
  const result = new Float64Array(M * N);
  let m = 0;
  for (; m + 4 <= M; m += 4) {
    const r0 = m * K, r1 = r0 + K, r2 = r1 + K, r3 = r2 + K;
    let n = 0;
    for (; n + 2 <= N; n += 2) {
      const c0 = n * K, c1 = c0 + K;
      let a0 = bias[m], a1 = bias[m + 1], a2 = bias[m + 2], a3 = bias[m + 3];
      let b0 = a0, b1 = a1, b2 = a2, b3 = a3;
      for (let k = 0; k < K; k++) {
        const x = columns[c0 + k], y = columns[c1 + k];
        const w0 = rows[r0 + k], w1 = rows[r1 + k], w2 = rows[r2 + k], w3 = rows[r3 + k];
        a0 += x * w0; a1 += x * w1; a2 += x * w2; a3 += x * w3;
        b0 += y * w0; b1 += y * w1; b2 += y * w2; b3 += y * w3;
      }
      const o = n * M + m, p = o + M;
      result[o] = a0; result[o + 1] = a1; result[o + 2] = a2; result[o + 3] = a3;
      result[p] = b0; result[p + 1] = b1; result[p + 2] = b2; result[p + 3] = b3;
    }
    for (; n < N; n++) for (let i = m; i < m + 4; i++) result[n * M + i] = dot(i, n);
  }
  for (; m < M; m++) for (let n = 0; n < N; n++) result[n * M + m] = dot(m, n);
  return result;

  function dot(m, n) {
    let sum = bias[m];
    for (let k = 0, r = m * K, c = n * K; k < K; k++) sum += rows[r + k] * columns[c + k];
    return sum;
  }
}

// Calls visit(position in the patch, offset in the image) for the part of the patch at (top, left)
// that lies inside the image.
function eachInside(top, left, kernel, height, width, visit) {
  for (let y = 0; y < kernel[0]; y++) {
    if (top + y < 0 || top + y >= height) continue;
    for (let x = 0; x < kernel[1]; x++) {
      if (left + x < 0 || left + x >= width) continue;
      visit(y * kernel[1] + x, (top + y) * width + left + x);
    }
  }
}

const KINDS = {
  // weight [out][kernel height][kernel width][in]
  conv2d({ channels, kernel, stride, padding, weight, bias }, map) {
    const inside = map.channels;
    const height = Math.floor((map.height + 2 * padding[0] - kernel[0]) / stride[0]) + 1;
    const width = Math.floor((map.width + 2 * padding[1] - kernel[1]) / stride[1]) + 1;
    const K = kernel[0] * kernel[1] * inside;
    const patches = new Float64Array(height * width * K);
    for (let y = 0, n = 0; y < height; y++) {
      for (let x = 0; x < width; x++, n++) {
        const top = y * stride[0] - padding[0], left = x * stride[1] - padding[1];
        eachInside(top, left, kernel, map.height, map.width, (place, offset) => {
          const to = n * K + place * inside, from = offset * inside;
          for (let c = 0; c < inside; c++) patches[to + c] = map.data[from + c];
        });
      }
    }
    const data = product(weight, patches, bias, channels, K, height * width);
    return { channels, height, width, data };
  },

  // weight [kernel height][kernel width][out][in]: each pixel becomes a patch, and these add up
  conv_transpose2d({ channels, kernel, stride, padding, weight, bias }, map) {
    const height = (map.height - 1) * stride[0] - 2 * padding[0] + kernel[0];
    const width = (map.width - 1) * stride[1] - 2 * padding[1] + kernel[1];
    const M = kernel[0] * kernel[1] * channels, N = map.height * map.width;
    const patches = product(weight, map.data, new Float64Array(M), M, map.channels, N);
    const data = new Float64Array(height * width * channels);
    for (let i = 0; i < data.length; i++) data[i] = bias[i % channels];
    for (let y = 0, n = 0; y < map.height; y++) {
      for (let x = 0; x < map.width; x++, n++) {
        const top = y * stride[0] - padding[0], left = x * stride[1] - padding[1];
        eachInside(top, left, kernel, height, width, (place, offset) => {
          const to = offset * channels, from = n * M + place * channels;
          for (let c = 0; c < channels; c++) data[to + c] += patches[from + c];
        });
      }
    }
    return { channels, height, width, data };
  },

  // weight [out][in]
  linear({ features, weight, bias }, vector) {
    return product(weight, vector, bias, features, vector.length, 1);
  },

  // loops, as map() takes several times as long
  silu(_, input) {
    const from = input.data ?? input, data = new Float64Array(from.length);
    for (let i = 0; i < data.length; i++) data[i] = silu(from[i]);
    return input.data ? { ...input, data } : data;
  },

  residual({ layers }, input) {
    const { data } = run(layers, input);
    for (let i = 0; i < data.length; i++) data[i] += input.data[i];
    return { ...input, data };
  },

  // a vector has the channels outermost, as PyTorch has them
  flatten(_, { channels, height, width, data }) {
    const area = height * width, vector = new Float64Array(data.length);
    for (let i = 0; i < data.length; i++) {
      vector[(i % channels) * area + Math.floor(i / channels)] = data[i];
    }
    return vector;
  },

  unflatten({ channels, height, width }, vector) {
    const area = height * width, data = new Float64Array(vector.length);
    for (let i = 0; i < data.length; i++) {
      data[i] = vector[(i % channels) * area + Math.floor(i / channels)];
    }
    return { channels, height, width, data };
  },
};

function run(layers, input) {
  return layers.reduce((x, layer) => KINDS[layer.kind](layer, x), input);
}

// Loops, as the same with from() takes most of the time in which the page opens.
function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// Base64 of little-endian 32-bit floats to numbers.
const floatsOf = (base64) => new Float32Array(bytesOf(base64).buffer);

// All weights: 16-bit integers, and a scale for each block of them.
function unpacked({ block, scales, integers }) {
  const scale = floatsOf(scales), whole = new Int16Array(bytesOf(integers).buffer);
  const weights = new Float64Array(whole.length);
  for (let i = 0; i < whole.length; i++) weights[i] = whole[i] * scale[Math.floor(i / block)];
  return weights;
}

// Puts the numbers into a network as explore.py described it: {start, length} becomes that part of
// all weights.
function withWeights(described, weights) {
  if (described === null || typeof described !== "object") return described;
  if (Array.isArray(described)) return described.map((value) => withWeights(value, weights));
  if ("start" in described) {
    return weights.subarray(described.start, described.start + described.length);
  }
  const entries = Object.entries(described);
  return Object.fromEntries(entries.map(([name, value]) => [name, withWeights(value, weights)]));
}

// ---- the VAE -----------------------------------------------------------------------------------

// q(z|x): grey levels [784] in 0..15 to {mean, logStd}, as CNNEncoder.forward has it.
function encode(model, levels) {
  const data = Float64Array.from(levels, (level) => level / (LEVELS - 1) * 2 - 1);
  const out = run(model.encoder, { channels: 1, height: SIDE, width: SIDE, data });
  return { mean: out.slice(0, model.zDim), logStd: out.slice(model.zDim) };
}

// p(x|z): latents to logits [784][16], the unnormalised log-probabilities of the grey levels.
function decode(model, z) {
  return run(model.decoder, Float64Array.from(z)).data;
}

// log of the sum of exponentials of count numbers from start.
function logSumExp(values, start = 0, count = values.length) {
  let highest = -Infinity, sum = 0;
  for (let i = start; i < start + count; i++) highest = Math.max(highest, values[i]);
  for (let i = start; i < start + count; i++) sum += Math.exp(values[i] - highest);
  return highest + Math.log(sum);
}

// The expected grey level of every pixel, [784] in 0..15.
function expectedLevels(logits) {
  const means = new Float64Array(PIXELS);
  for (let pixel = 0, start = 0; pixel < PIXELS; pixel++, start += LEVELS) {
    const whole = logSumExp(logits, start, LEVELS);
    for (let v = 0; v < LEVELS; v++) means[pixel] += v * Math.exp(logits[start + v] - whole);
  }
  return means;
}

// The place that is drawn from unnormalised log-probabilities with a number in [0, 1).
function choose(logits, number, start = 0, count = logits.length) {
  const whole = logSumExp(logits, start, count);
  let left = number, v = 0;
  while (v < count - 1 && (left -= Math.exp(logits[start + v] - whole)) >= 0) v++;
  return v;
}

// A grey level for every pixel, drawn from the decoder's distribution with noise [784].
const drawnLevels = (logits, noise) =>
  Float64Array.from(noise, (number, pixel) => choose(logits, number, pixel * LEVELS, LEVELS));

// -log p(x|z) in nats: the cross-entropy summed over the pixels.
function reconstructionLoss(logits, levels) {
  let nats = 0;
  for (let pixel = 0; pixel < PIXELS; pixel++) {
    nats += logSumExp(logits, pixel * LEVELS, LEVELS) - logits[pixel * LEVELS + levels[pixel]];
  }
  return nats;
}

// KL(q(z|x) || N(0, I)) in nats of every latent.
const klPerLatent = ({ mean, logStd }) =>
  mean.map((m, d) => 0.5 * (Math.expm1(2 * logStd[d]) - 2 * logStd[d] + m * m));

// A draw of q(z|x), from noise of N(0, I).
const drawOf = ({ mean, logStd }, noise) => mean.map((m, d) => m + Math.exp(logStd[d]) * noise[d]);

const inBpd = (nats) => nats / (PIXELS * Math.LN2);

// The negative ELBO of an image with one draw of z, and its parts in nats; posterior is encode's.
function loss(model, levels, posterior, noise) {
  const z = drawOf(posterior, noise), logits = decode(model, z), kl = klPerLatent(posterior);
  const reconstruction = reconstructionLoss(logits, levels);
  const regularization = kl.reduce((sum, each) => sum + each, 0);
  const bpd = inBpd(reconstruction + regularization);
  return { z, logits, kl, reconstruction, regularization, bpd };
}

// ---- the learned prior: LatentPrior in prior.py ------------------------------------------------

// p(z_i | z_0..z_{i-1}, label), to be asked for one latent after the other: a function of i, from
// 0, and z, of which it looks at the first i numbers only. Each unit is computed once: they stand
// in the order of how many latents they see, and a row of weights has just what its unit may see.
function conditionals({ prior }, label) {
  const { width, components, known, classes, first, middle, last } = prior;
  const lower = new Float64Array(width), upper = new Float64Array(width);
  const unit = ({ weight, bias, starts }, row, input) => {
    let sum = bias[row];
    for (let k = starts[row], i = 0; k < starts[row + 1]; k++, i++) sum += weight[k] * input[i];
    return sum;
  };
  let done = 0;
  return (i, z) => {
    for (let u = done; u < known[i]; u++) {
      lower[u] = silu(unit(first, u, z) + classes[label * width + u]);
    }
    for (let u = done; u < known[i]; u++) upper[u] = silu(unit(middle, u, lower));
    done = known[i];
    const outputs = (part) => Float64Array.from({ length: components },
      (_, k) => unit(last, (3 * i + part) * components + k, upper));
    const logWeights = outputs(0), whole = logSumExp(logWeights);
    return { logWeights: logWeights.map((w) => w - whole), means: outputs(1), logStds: outputs(2) };
  };
}

// log of a mixture of Gaussians at a value.
function mixtureLogProb({ logWeights, means, logStds }, value) {
  return logSumExp(logWeights.map((w, k) => w - logStds[k]
    - 0.5 * (((value - means[k]) * Math.exp(-logStds[k])) ** 2 + Math.log(2 * Math.PI))));
}

// log p(z|label) in nats.
function logPrior(model, z, label) {
  const mixture = conditionals(model, label);
  return z.reduce((sum, value, i) => sum + mixtureLogProb(mixture(i, z), value), 0);
}

// Latents drawn from the learned prior given a class, as LatentPrior.sample draws them, and their
// log p(z|label): with the model's temperature below 1 they keep to its denser places.
function drawPrior(model, label, random) {
  const { temperature: T, zDim } = model, mixture = conditionals(model, label);
  const z = new Float64Array(zDim);
  let logProb = 0;
  for (let i = 0; i < z.length; i++) {
    const here = mixture(i, z), { logWeights, means, logStds } = here;
    const k = choose(logWeights.map((w) => w / T ** 2), random.uniform());
    z[i] = means[k] + T * Math.exp(logStds[k]) * random.normal();
    logProb += mixtureLogProb(here, z[i]);
  }
  return { z, logProb };
}

// Of several draws the one of highest density: from where the prior is thin come images of nothing.
function drawLikely(model, label, random, draws = 4) {
  const each = Array.from({ length: draws }, () => drawPrior(model, label, random));
  return each.reduce((best, next) => next.logProb > best.logProb ? next : best).z;
}

// log p(z|class) for every class. All being equally likely before, p(class|z) is their softmax, and
// p(z) the mean of their exponentials.
function logPriors(model, z, count) {
  return Float64Array.from({ length: count }, (_, label) => logPrior(model, z, label));
}

// -log p(x) <= L_rec + log q(z|x) - log p(z) in nats, the prior being the learned one, the mean of
// p(z|class) over the classes; of this bound what takes the place of L_reg.
function learnedRegularization(model, { z }, { logStd }, noise, count) {
  const logPosterior = noise.reduce(
    (sum, e, d) => sum - 0.5 * (e * e + Math.log(2 * Math.PI)) - logStd[d], 0);
  return logPosterior - logSumExp(logPriors(model, z, count)) + Math.log(count);
}

// ---- randomness: one stream, the same in every browser (mulberry32) ----------------------------

function randomStream(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const uniforms = (count) => Float64Array.from({ length: count }, uniform);
  const normals = (count) => Float64Array.from({ length: count }, normal);
  return { uniform, normal, uniforms, normals };
}
