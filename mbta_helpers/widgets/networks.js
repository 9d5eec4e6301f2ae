// Networks: the forward passes of mbta_helpers/networks.py that planning needs, in float32.

// --- products of matrices ----------------------------------------------------------------------

const ROWS = 4; // rows and
const LANES = 8; // outputs that the kernel handles at a time; both are padded to multiples

/**
 * The kernel y = max(x W + b, low) as a WebAssembly module, written out instruction by instruction.
 *
 * Plain JavaScript does one product at a time, this does four: a plan is some 2·10⁹ of them.
 * Parameters: x, stride (bytes from row to row), rows, inputs · 4, w, b, y, outputs · 4, low.
 * w lies in blocks of LANES outputs: (outputs / LANES, inputs, LANES).
 */
export function kernelBytes() {
  const [X, STRIDE, N, INPUTS, W, B, Y, OUTPUTS, LOW] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  const [xi, end, wi, o, yi] = [9, 10, 11, 12, 13]; // i32
  const [w0, w1, t, acc] = [14, 15, 16, 17]; // v128; acc: 2 for each row
  const leb = (n) => {
    const bytes = [];
    for (; n > 127; n >>>= 7) bytes.push((n & 127) | 128);
    return [...bytes, n];
  };
  const get = (i) => [0x20, i];
  const set = (i) => [0x21, i];
  const int = (n) => [0x41, n]; // below 64
  const add = [0x6a];
  const vector = (code, ...rest) => [0xfd, ...leb(code), ...rest];
  const load = (offset) => vector(0, 0, offset);
  const splat = vector(9, 0, 0); // v128.load32_splat
  const store = (offset) => vector(11, 0, offset);
  const [plus, times, max, ofLow] = [228, 230, 233, 19].map((code) => vector(code));
  const loop = (body, again) => [0x03, 0x40, ...body, ...again, 0x0d, 0, 0x0b];
  const step = (i, by) => [...get(i), ...by, ...add, ...set(i)];

  const rows = [...Array(ROWS).keys()];
  const inner = [
    ...get(wi), ...load(0), ...set(w0), ...get(wi), ...load(16), ...set(w1), ...get(xi), ...set(yi),
    ...rows.flatMap((r) => [
      ...get(yi), ...splat, ...set(t), ...step(yi, get(STRIDE)),
      ...[w0, w1].flatMap((w, j) => [
        ...get(acc + 2 * r + j), ...get(t), ...get(w), ...times, ...plus, ...set(acc + 2 * r + j),
      ]),
    ]),
    ...step(wi, int(32)), ...step(xi, int(4)),
  ]; // prettier-ignore
  const block = [
    ...[0, 1].flatMap((j) => [
      ...get(B), ...get(o), ...add, ...load(16 * j), ...set(w0),
      ...rows.flatMap((r) => [...get(w0), ...set(acc + 2 * r + j)]),
    ]),
    ...get(X), ...set(xi), ...get(X), ...get(INPUTS), ...add, ...set(end),
    ...loop(inner, [...get(xi), ...get(end), 0x49]), // while xi < end, unsigned
    ...get(Y), ...get(o), ...add, ...set(yi), ...get(LOW), ...ofLow, ...set(t),
    ...rows.flatMap((r) => [
      ...[0, 1].flatMap((j) => [
        ...get(yi), ...get(acc + 2 * r + j), ...get(t), ...max, ...store(16 * j),
      ]),
      ...step(yi, get(OUTPUTS)),
    ]),
    ...step(o, int(32)),
  ]; // prettier-ignore
  const row = [
    ...int(0), ...set(o), ...get(W), ...set(wi),
    ...loop(block, [...get(o), ...get(OUTPUTS), 0x49]),
    ...rows.flatMap(() => [...step(X, get(STRIDE)), ...step(Y, get(OUTPUTS))]),
    ...get(N), ...int(ROWS), 0x6b, ...set(N),
  ]; // prettier-ignore
  const code = [2, 5, 0x7f, 11, 0x7b, ...loop(row, get(N)), 0x0b];
  const name = (text) => [text.length, ...[...text].map((letter) => letter.charCodeAt(0))];
  const section = (id, content) => [id, ...leb(content.length), ...content];
  return new Uint8Array([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [1, 0x60, 9, ...Array(8).fill(0x7f), 0x7d, 0]),
    ...section(2, [1, ...name("js"), ...name("memory"), 2, 0, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name("dense"), 0, 0]),
    ...section(10, [1, ...leb(code.length), ...code]),
  ]); // prettier-ignore
}

/** The same kernel in plain JavaScript, for browsers without SIMD; floats: all memory. */
export function plainKernel(floats) {
  return (x, stride, rows, inputs, w, b, y, outputs, low) => {
    const memory = floats();
    [x, stride, inputs, w, b, y, outputs] = [x, stride, inputs, w, b, y, outputs].map((i) => i / 4);
    const sums = new Float64Array(LANES);
    for (let r = 0; r < rows; r++) {
      for (let o = 0, at = w; o < outputs; o += LANES) {
        for (let j = 0; j < LANES; j++) sums[j] = memory[b + o + j];
        for (let i = 0; i < inputs; i++, at += LANES) {
          const factor = memory[x + r * stride + i];
          if (factor === 0) continue; // every other one, behind a ReLU
          for (let j = 0; j < LANES; j++) sums[j] += factor * memory[at + j];
        }
        for (let j = 0; j < LANES; j++) memory[y + r * outputs + o + j] = Math.max(sums[j], low);
      }
    }
  };
}

const upTo = (count, multiple) => Math.ceil(count / multiple) * multiple;

/** Memory of float32 numbers, and the kernel that works in it. */
export class Arena {
  constructor(plain = false) {
    this.memory = new WebAssembly.Memory({ initial: 1 });
    this.used = 0;
    const bytes = kernelBytes();
    if (plain || !WebAssembly.validate(bytes)) {
      this.dense = plainKernel(() => this.floats());
    } else {
      const imports = { js: { memory: this.memory } };
      this.dense = new WebAssembly.Instance(new WebAssembly.Module(bytes), imports).exports.dense;
    }
  }

  /** All memory as numbers; a view that the next `allocate` may make useless. */
  floats() {
    return new Float32Array(this.memory.buffer);
  }

  /** The address of room for so many zeros. */
  allocate(count) {
    const address = this.used;
    this.used += upTo(4 * count, 16);
    const missing = this.used - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / 65536));
    return address;
  }

  /** Numbers [rows, width] that lie `stride` numbers apart, copied out. */
  read(address, rows, stride, width) {
    const from = this.floats().subarray(address / 4);
    const out = new Float32Array(rows * width);
    for (let r = 0; r < rows; r++) {
      for (let i = 0; i < width; i++) out[r * width + i] = from[r * stride + i];
    }
    return out;
  }
}

/** One linear layer. weight: {shape: [outputs, inputs], data}, bias: {data}. */
class Linear {
  constructor(arena, capacity, weight, bias) {
    const [outputs, inputs] = weight.shape;
    this.arena = arena;
    this.inputs = inputs;
    this.width = upTo(outputs, LANES); // of an output row, padded
    this.w = arena.allocate(this.width * inputs);
    this.b = arena.allocate(this.width);
    this.y = arena.allocate(this.width * capacity);
    const memory = arena.floats();
    for (let o = 0; o < outputs; o++) {
      memory[this.b / 4 + o] = bias.data[o];
      const block = this.w / 4 + (o - (o % LANES)) * inputs + (o % LANES);
      for (let i = 0; i < inputs; i++) memory[block + i * LANES] = weight.data[o * inputs + i];
    }
  }

  /** The address of the output for so many rows at address x, `width` numbers apart. */
  run(x, width, rows, low = -Infinity) {
    const { w, b, y } = this;
    this.arena.dense(x, 4 * width, upTo(rows, ROWS), 4 * this.inputs, w, b, y, 4 * this.width, low);
    return y;
  }
}

// --- the networks ------------------------------------------------------------------------------

/**
 * The networks of mbta_helpers/networks.py, for states (rows, S) and skills (rows, Z) as flat
 * arrays. config: wavelengths, min_std, max_std. capacity: rows that fit at a time. States that are
 * given to one network after another must not be changed in between: their features are kept.
 */
export class SkillModel {
  constructor(tensors, config, capacity, arena = new Arena()) {
    this.arena = arena;
    this.config = config;
    this.normaliser = {};
    for (const name of ["mean", "std", "delta_std"]) {
      this.normaliser[name] = tensors[`normaliser.${name}`].data;
    }
    this.stateDim = this.normaliser.mean.length;
    this.skillDim = tensors["prior.heads.mean_head.fc2.weight"].shape[0];
    this.width = this.stateDim + 4 * config.wavelengths.length;
    this.rowWidth = this.width + this.skillDim;
    const rows = upTo(capacity, ROWS);
    const linear = (name) =>
      new Linear(arena, rows, tensors[`${name}.weight`], tensors[`${name}.bias`]);
    const pair = (name) => [linear(`${name}.fc1`), linear(`${name}.fc2`)];
    this.policy = { trunk: pair("policy.trunk"), mean: pair("policy.heads.mean_head") };
    this.world = {
      trunk: pair("world_model.trunk"),
      mean: pair("world_model.heads.mean_head"),
      std: "world_model.heads.std_head.fc1.weight" in tensors && pair("world_model.heads.std_head"),
    };
    this.skills = {
      trunk: pair("prior.trunk"),
      mean: pair("prior.heads.mean_head"),
      std: pair("prior.heads.std_head"),
    };
    this.known = { trunk: pair("support.trunk"), readout: linear("support.readout") };
    this.x = arena.allocate(rows * this.rowWidth);
  }

  /** Put normalised states, waves of the position and skills into the networks' input. */
  #input(states, rows, skills = null) {
    const { mean, std } = this.normaliser;
    const { stateDim, skillDim, rowWidth, width } = this;
    const x = this.arena.floats().subarray(this.x / 4, this.x / 4 + rows * rowWidth);
    for (let r = 0; skills && r < rows; r++) {
      for (let i = 0; i < skillDim; i++) x[r * rowWidth + width + i] = skills[r * skillDim + i];
    }
    if (states === this.seen) return [this.x, rowWidth]; // sines are dear
    this.seen = states;
    for (let r = 0; r < rows; r++) {
      let at = r * rowWidth;
      const state = r * stateDim;
      for (let i = 0; i < stateDim; i++) x[at++] = (states[state + i] - mean[i]) / std[i];
      for (const wavelength of this.config.wavelengths) {
        const phase = (2 * Math.PI) / wavelength;
        x[at++] = Math.sin(phase * states[state]);
        x[at++] = Math.sin(phase * states[state + 1]);
        x[at++] = Math.cos(phase * states[state]);
        x[at++] = Math.cos(phase * states[state + 1]);
      }
    }
    return [this.x, rowWidth];
  }

  /** Two layers; the last of them with low = 0 for a trunk. Returns [address, width]. */
  #pair([first, second], [x, width], rows, low) {
    const hidden = first.run(x, width, rows, 0);
    return [second.run(hidden, first.width, rows, low), second.width];
  }

  #head(pair, features, rows, outputs) {
    const [y, width] = this.#pair(pair, features, rows, -Infinity);
    return this.arena.read(y, rows, width, outputs);
  }

  #std(pair, features, rows, outputs) {
    const { min_std: low, max_std: high } = this.config;
    const std = this.#head(pair, features, rows, outputs);
    return std.map((value) => low + (high - low) / (1 + Math.exp(-value)));
  }

  /** p_ω(z|s): {loc, scale}, (rows, Z) each. */
  prior(states, rows) {
    const features = this.#pair(this.skills.trunk, this.#input(states, rows), rows, 0);
    return {
      loc: this.#head(this.skills.mean, features, rows, this.skillDim),
      scale: this.#std(this.skills.std, features, rows, this.skillDim),
    };
  }

  /** p_ψ(s_T|s, z): {loc, scale}, (rows, S) each, in map units; scale only if asked for, and there. */
  outcome(states, skills, rows, withScale = false) {
    const delta = this.normaliser.delta_std;
    const features = this.#pair(this.world.trunk, this.#input(states, rows, skills), rows, 0);
    const dims = this.stateDim;
    const loc = this.#head(this.world.mean, features, rows, dims);
    for (let i = 0; i < loc.length; i++) loc[i] = states[i] + delta[i % dims] * loc[i];
    if (!withScale) return { loc };
    const scale = this.#std(this.world.std, features, rows, dims);
    return { loc, scale: scale.map((value, i) => value * delta[i % dims]) };
  }

  /** c(s): log-odds that the data knows a state, (rows,). */
  support(states, rows) {
    const [x, width] = this.#pair(this.known.trunk, this.#input(states, rows), rows, 0);
    const y = this.known.readout.run(x, width, rows);
    return this.arena.read(y, rows, this.known.readout.width, 1);
  }

  /** The policy's mean action, inside the box [−1, 1]; (rows, 2). */
  act(states, skills, rows) {
    const features = this.#pair(this.policy.trunk, this.#input(states, rows, skills), rows, 0);
    const actions = this.#head(this.policy.mean, features, rows, 2);
    return actions.map((value) => Math.min(Math.max(value, -1), 1));
  }
}
