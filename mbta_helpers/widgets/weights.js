// Weights: the tensors of a safetensors file.

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
