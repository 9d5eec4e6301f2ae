// Planning: the cross-entropy method and the planner of mbta_helpers/planning.py, one problem.

/**
 * One iteration of the cross-entropy method, (6.8) to (6.10).
 *
 * search: {mean, std, best}, (D,) each. cost: candidates (K, D) to (K,). config: candidates K,
 * elites, momentum, min_std. Returns the next search with its cost, and candidates (K, D), costs
 * (K,) and order (K,), the candidates' numbers from the cheapest on.
 */
export function cemStep(cost, search, config, normal) {
  const { candidates: count, elites, momentum, min_std: floor } = config;
  const size = search.mean.length;
  const candidates = new Float32Array(count * size);
  for (let i = 0; i < candidates.length; i++) {
    candidates[i] = search.mean[i % size] + search.std[i % size] * normal();
  }
  candidates.set(search.best);
  const costs = cost(candidates);
  const order = Array.from(costs.keys()).sort((a, b) => costs[a] - costs[b]);
  const mean = new Float64Array(size);
  const std = new Float64Array(size);
  for (let i = 0; i < size; i++) {
    let sum = 0;
    for (let j = 0; j < elites; j++) sum += candidates[order[j] * size + i];
    const centre = sum / elites;
    let squares = 0;
    for (let j = 0; j < elites; j++) squares += (candidates[order[j] * size + i] - centre) ** 2;
    const spread = Math.max(Math.sqrt(squares / (elites - 1)), floor);
    mean[i] = momentum * search.mean[i] + (1 - momentum) * centre;
    std[i] = momentum * search.std[i] + (1 - momentum) * spread;
  }
  const best = candidates.slice(order[0] * size, (order[0] + 1) * size);
  return { mean, std, best, cost: costs[order[0]], candidates, costs, order };
}

/**
 * Roll out the world model's mean from one state; epsilon: (K, L, Z), flat.
 *
 * Returns path, an array of L + 1 flat arrays (K, S), known, an array of L arrays (K,), the support
 * of the states reached, and first, the first skills (K, Z).
 */
export function imagine(model, state, epsilon, count, length) {
  const size = model.skillDim;
  let current = new Float32Array(count * model.stateDim);
  for (let k = 0; k < count; k++) current.set(state, k * model.stateDim);
  const path = [current];
  const known = [];
  let first = null;
  for (let l = 0; l < length; l++) {
    const { loc, scale } = l ? model.prior(current, count) : model.prior(state, 1);
    const z = new Float32Array(count * size);
    for (let k = 0; k < count; k++) {
      for (let i = 0; i < size; i++) {
        const at = l ? k * size + i : i; // all candidates start from one state: one prior
        z[k * size + i] = loc[at] + scale[at] * epsilon[(k * length + l) * size + i];
      }
    }
    first ??= z;
    current = model.outcome(current, z, count).loc;
    path.push(current);
    known.push(model.support(current, count));
  }
  return { path, known, first };
}

/** log(1 + e^x), without overflow. */
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

/**
 * Costs of candidates, (6.12): the smallest, along the plan, of squared distance and penalties.
 *
 * epsilon: (K, L, Z). Returns costs (K,), path as `imagine`, and nearest (K,), the number of
 * skills after which each is smallest.
 */
export function evaluate(model, config, state, goal, epsilon) {
  const length = config.plan_length;
  const dims = model.stateDim;
  const size = model.skillDim;
  const count = epsilon.length / (length * size);
  const imagined = imagine(model, state, epsilon, count, length);
  const costs = new Float64Array(count).fill(Infinity);
  const nearest = new Int32Array(count);
  const risk = new Float64Array(count);
  for (let l = 1; l <= length; l++) {
    const states = imagined.path[l];
    const known = imagined.known[l - 1];
    for (let k = 0; k < count; k++) {
      let squares = 0;
      for (let i = 0; i < size; i++) squares += epsilon[(k * length + l - 1) * size + i] ** 2;
      risk[k] +=
        config.time_penalty +
        (config.epsilon_penalty * squares) / size +
        config.support_penalty * softplus(-known[k]);
      const [dx, dy] = [states[k * dims] - goal[0], states[k * dims + 1] - goal[1]];
      const cost = dx * dx + dy * dy + risk[k];
      if (cost < costs[k]) [costs[k], nearest[k]] = [cost, l];
    }
  }
  return { costs, nearest, ...imagined };
}

/** The first search: the prior, mean 0 and std 1 of ε; or the last plan's, moved on (6.13). */
export function firstSearch(config, size, last = null) {
  const count = config.plan_length * size;
  const mean = new Float64Array(count);
  const fraction = config.replan_every / config.window_length;
  for (let i = 0; last && i < count; i++) {
    const after = i + size < count ? last.best[i + size] : 0;
    mean[i] = (1 - fraction) * last.best[i] + fraction * after;
  }
  const std = new Float64Array(count).fill(last ? config.warm_std : 1);
  return { mean, std, best: mean };
}

/**
 * Plan from a state (S,) to a goal (2,): a generator that yields after each iteration of CEM.
 *
 * What it yields is the search (cemStep), with path, as `imagine`, and ends (K,), the skills
 * after which each candidate's cost is read. Of the cheapest: plan, its L + 1 points [x, y] as
 * imagined, nearest, its end, and skill, its first (Z,). The last one is what is carried out.
 */
export function* planSteps(model, config, state, goal, normal, last = null) {
  const size = model.skillDim;
  let search = firstSearch(config, size, last);
  for (let i = 0; i < config.cem.iterations; i++) {
    let seen = null;
    const cost = (epsilon) => (seen = evaluate(model, config, state, goal, epsilon)).costs;
    search = { ...cemStep(cost, search, config.cem, normal), iteration: i + 1 };
    const k = search.order[0];
    const at = (values, width) => values.slice(k * width, (k + 1) * width);
    yield {
      ...search,
      path: seen.path,
      ends: seen.nearest,
      plan: seen.path.map((states) => Array.from(at(states, model.stateDim)).slice(0, 2)),
      nearest: seen.nearest[k],
      skill: at(seen.first, size),
    };
  }
}
