// Small networks of linear layers, in plain JavaScript.

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
