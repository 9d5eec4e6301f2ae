// The cross-entropy method on a landscape of two numbers: step by step, with other settings.

import { arrows, button, follow, html, line, number, pointer, put, scale, slider, svg } from "./draw.js";
import { cemStep } from "./planner.js";
import { normals } from "./random.js";

const HALF = 3; // the picture shows both numbers from −HALF to HALF
const SIDE = 360; // of the picture's units
const LEVELS = [8, 5.5, 3.5, 2, 1, 0.4, 0.1]; // costs at which the ground gets darker
const MOST = 20; // iterations

/**
 * The cost of points: the lowest of several bowls, which makes kinks and valleys as in (6.2).
 *
 * wells: [x, y, a, b, depth] each, for depth + a (p − x)² + b (q − y)². points: (K, 2), flat.
 */
export function wellsCost(wells, points) {
  const costs = new Float64Array(points.length / 2);
  for (let k = 0; k < costs.length; k++) {
    const [p, q] = [points[2 * k], points[2 * k + 1]];
    costs[k] = Math.min(
      ...wells.map(([x, y, a, b, depth]) => depth + a * (p - x) ** 2 + b * (q - y) ** 2),
    );
  }
  return costs;
}

/** The searches of so many iterations, the first Gaussian (no candidates yet) included. */
export function searches(wells, config, start, iterations, normal) {
  const seen = [{ mean: start, std: [1, 1], best: start }];
  for (let i = 0; i < iterations; i++) {
    seen.push(cemStep((points) => wellsCost(wells, points), seen[i], config, normal));
  }
  return seen;
}

function render({ model, el }) {
  el.classList.add("mbta-live");
  const panels = html("div", { class: "panels" }, el);
  const picture = svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, class: "ground" }, panels);
  picture.setAttribute("role", "application");
  picture.setAttribute("tabindex", 0);
  picture.setAttribute(
    "aria-label",
    "The landscape with the candidates of one iteration, the elites among them marked, and the " +
      "Gaussian that is fitted to the elites. A click or the arrow keys move the first mean.",
  );
  const x = scale(-HALF, HALF, 0, SIDE);
  const y = scale(-HALF, HALF, SIDE, 0);
  const unit = SIDE / (2 * HALF);
  const bowl = ([p, q, a, b, depth], level) => {
    const [rx, ry] = [a, b].map((bend) => unit * Math.sqrt(Math.max(level - depth, 0) / bend));
    return `M${x(p) - rx} ${y(q)}a${rx} ${ry} 0 1 0 ${2 * rx} 0a${rx} ${ry} 0 1 0 ${-2 * rx} 0z`;
  };
  for (const level of LEVELS) {
    const d = model.get("wells").map((well) => bowl(well, level)).join("");
    svg("path", { class: "level", d }, picture);
  }
  const parts = {};
  for (const name of ["others", "chosen", "means"]) parts[name] = svg("path", { class: name }, picture);
  parts.ellipses = [1, 2].map(() => svg("ellipse", { class: "spread" }, picture));
  parts.mean = svg("circle", { class: "mean", r: 5 }, picture);
  const dots = (points) => points.map(([p, q]) => `M${x(p)} ${y(q)}h0`).join("");

  const controls = html("div", { class: "controls" }, el);
  const change = (name, value) => put(model, { [name]: value });
  const step = button(controls, "Next iteration", () =>
    change("iterations", Math.min(model.get("iterations") + 1, MOST)),
  );
  button(controls, "First Gaussian", () => change("iterations", 0));
  button(controls, "Other draws", () => change("seed", model.get("seed") + 1));
  const sliders = html("div", { class: "controls" }, el);
  const whole = { step: 1, decimals: 0 };
  slider(sliders, model, "iterations", { label: "iteration", min: 0, max: MOST, ...whole });
  slider(sliders, model, "elites", { label: "elites", min: 2, max: model.get("candidates"), ...whole });
  slider(sliders, model, "momentum", { label: "momentum", min: 0, max: 0.9, step: 0.05 });
  const said = html("p", { class: "said", "aria-live": "polite" }, el);

  const begin = (place) => {
    model.set("start", place.map((value) => Math.min(Math.max(value, -HALF), HALF)));
    change("iterations", 0);
  };
  picture.addEventListener("click", (event) => {
    const [px, py] = pointer(event, picture);
    begin([x.invert(px), y.invert(py)]);
  });
  arrows(picture, ([right, down]) => {
    const [p, q] = model.get("start");
    begin([p + 0.25 * right, q - 0.25 * down]);
  });

  const names = ["iterations", "elites", "momentum", "seed", "start", "candidates"];
  follow(model, names, () => {
    const [iterations, elites, momentum, seed, start, candidates] = names.map((n) => model.get(n));
    const config = { candidates, elites, momentum, min_std: model.get("min_std") };
    const seen = searches(model.get("wells"), config, start, iterations, normals(seed));
    const { mean, std, candidates: points, order, cost } = seen[iterations];
    const at = (k) => [points[2 * k], points[2 * k + 1]];
    parts.others.setAttribute("d", order ? dots(order.slice(elites).map(at)) : "");
    parts.chosen.setAttribute("d", order ? dots(order.slice(0, elites).map(at)) : "");
    parts.means.setAttribute("d", line(seen.map(({ mean: [p, q] }) => [x(p), y(q)])));
    parts.ellipses.forEach((ellipse, i) => {
      const values = { cx: x(mean[0]), cy: y(mean[1]), rx: std[0], ry: std[1] };
      values.rx *= unit * (i + 1);
      values.ry *= unit * (i + 1);
      for (const [name, value] of Object.entries(values)) ellipse.setAttribute(name, value);
    });
    parts.mean.setAttribute("cx", x(mean[0]));
    parts.mean.setAttribute("cy", y(mean[1]));
    step.disabled = iterations === MOST;
    said.textContent =
      `iteration ${iterations}: mean (${number(mean[0])}, ${number(mean[1])}), ` +
      `std (${number(std[0])}, ${number(std[1])})` +
      (order ? `, lowest cost ${number(cost, 3)}` : "");
  });
}

export default { render };
