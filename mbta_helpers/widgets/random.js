// Random draws that a seed repeats.

/** Uniform draws on [0, 1) from a seed, as a function without arguments (mulberry32). */
export function uniforms(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Normal draws from a seed, as a function without arguments (Box and Muller). */
export function normals(seed) {
  const uniform = uniforms(seed);
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** Draws out of an array, in its order: what a test passes in. */
export function drawsOf(array) {
  let next = 0;
  return () => array[next++];
}
