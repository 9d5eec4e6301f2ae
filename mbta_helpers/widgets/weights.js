// Weights: the tensors of a safetensors file, and small networks of linear layers.

const POWERS = Float64Array.from({ length: 32 }, (_, exponent) => 2 ** (exponent - 25));

/** A float16 number, given as its 16 bits; infinities and what is no number become NaN. */
export function half(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return NaN;
  const size = exponent ? (1024 + fraction) * POWERS[exponent] : fraction * POWERS[1];
  return bits & 0x8000 ? -size : size;
}

/**
 * The tensors of a safetensors file by name, {shape, data: Float32Array}; view: a DataView.
 *
 * Throws where the bytes are not a whole file: a figure with wrong weights would draw nonsense.
 */
export function readWeights(view) {
  const damaged = (why) => Error(`the weights are damaged (${why}); load the page again`);
  const size = view.byteLength < 8 ? Infinity : view.getUint32(0, true);
  if (8 + size > view.byteLength) throw damaged("no header");
  const text = new Uint8Array(view.buffer, view.byteOffset + 8, size);
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(text));
  } catch {
    throw damaged("an unreadable header");
  }
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(header)) {
    const width = dtype === "F16" ? 2 : 4;
    const count = (end - begin) / width;
    if (8 + size + end > view.byteLength) throw damaged("cut short");
    const data = new Float32Array(count);
    for (let i = 0, at = 8 + size + begin; i < count; i++, at += width) {
      data[i] = width === 2 ? half(view.getUint16(at, true)) : view.getFloat32(at, true);
    }
    if (!data.every(Number.isFinite)) throw damaged("numbers that are none");
    tensors[name] = { shape, data };
  }
  return tensors;
}

/** A text in base64 as a DataView. */
export const unpack = (text) =>
  new DataView(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

/** W x + b. weight: {shape: [outputs, inputs], data}, bias: {data}. */
export function affine(weight, bias, x) {
  const [outputs, inputs] = weight.shape;
  const y = new Float64Array(outputs);
  for (let o = 0; o < outputs; o++) {
    let sum = bias.data[o];
    for (let i = 0; i < inputs; i++) sum += weight.data[o * inputs + i] * x[i];
    y[o] = sum;
  }
  return y;
}

/** PyTorch's Sequential of linear layers with ReLUs in between; name: what their names begin with. */
export function layers(tensors, name, x) {
  const numbers = Object.keys(tensors)
    .filter((key) => key.startsWith(`${name}.`) && key.endsWith(".weight"))
    .map((key) => Number(key.slice(name.length + 1, -".weight".length)))
    .sort((one, other) => one - other);
  return numbers.reduce((input, number, i) => {
    const y = affine(tensors[`${name}.${number}.weight`], tensors[`${name}.${number}.bias`], input);
    return i < numbers.length - 1 ? y.map((value) => Math.max(value, 0)) : y;
  }, x);
}

/** Probabilities of logits. */
export function softmax(logits) {
  const top = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - top));
  const sum = powers.reduce((total, value) => total + value, 0);
  return powers.map((value) => value / sum);
}
