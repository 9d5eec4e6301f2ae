// The bound as a picture: chapter 2's line, where every term of (2.6) has a closed form.

import { axisBelow, follow, html, line, number, put, scale, slider, svg } from "./draw.js";
import { drag } from "./hands.js";

const LOWEST = -16; // nats, the bottom of the right panel
const WIDTHS = [0.1, 2.0]; // least and greatest standard deviation of q
const MEANS = [-3, 3];

const density = (z, mean, std) =>
  Math.exp(-0.5 * ((z - mean) / std) ** 2) / (std * Math.sqrt(2 * Math.PI));

/**
 * The terms of (2.6) for q = N(mean, std²), and what they bound.
 *
 * example: steps T, gain w, action_std σ_a, first = Σ (a_t − b), second = Σ (a_t − b)², and the
 * prior's prior_mean and prior_std. Returns action = E_q[log π], kl = KL(q ‖ p_ω), evidence, and
 * the true posterior's mean and std (2.18).
 */
export function boundTerms(example, mean, std) {
  const { steps, gain, action_std, first, second, prior_mean, prior_std } = example;
  const action = (m, s) =>
    -0.5 * steps * Math.log(2 * Math.PI * action_std ** 2) -
    (second - 2 * gain * m * first + steps * gain ** 2 * (m ** 2 + s ** 2)) / (2 * action_std ** 2);
  const kl = (m, s) =>
    Math.log(prior_std / s) +
    (s ** 2 + (m - prior_mean) ** 2) / (2 * prior_std ** 2) -
    0.5;
  const precision = prior_std ** -2 + (steps * gain ** 2) / action_std ** 2; // Λ
  const pull = prior_mean / prior_std ** 2 + (gain * first) / action_std ** 2; // ν
  const posterior = { mean: pull / precision, std: precision ** -0.5 };
  return {
    action: action(mean, std),
    kl: kl(mean, std),
    evidence: action(posterior.mean, posterior.std) - kl(posterior.mean, posterior.std),
    posterior,
  };
}

/** The left panel: prior, posterior and q over z. The top of q can be dragged. */
function drawDensities(parent, model) {
  const picture = svg("svg", { viewBox: "0 0 320 240", role: "img" }, parent);
  picture.setAttribute("aria-label", "Densities of prior, true posterior and q over z");
  const x = scale(-3.5, 3.5, 16, 304);
  const y = scale(0, 1.4, 196, 12);
  axisBelow(picture, x, 196, [-3, -2, -1, 0, 1, 2, 3], "z");
  const curves = {};
  ["prior", "posterior", "q"].forEach((name, i) => {
    curves[name] = svg("path", { class: `curve ${name}` }, picture);
    svg("path", { class: `curve ${name}`, d: `M16 ${20 + 16 * i}h18` }, picture);
    svg("text", { x: 40, y: 24 + 16 * i }, picture).textContent =
      name === "posterior" ? "true posterior" : name;
  });
  const handle = svg("circle", { r: 8, class: "handle" }, picture);
  const trace = (name, mean, std) => {
    const points = [];
    for (let z = -3.5; z <= 3.5; z += 0.02) points.push([x(z), y(Math.min(density(z, mean, std), 1.4))]);
    curves[name].setAttribute("d", line(points));
  };
  drag(handle, picture, ([px, py]) => {
    const height = Math.max(y.invert(py), 1e-3);
    const within = (value, [low, high]) => Math.min(Math.max(value, low), high);
    put(model, {
      mean: within(x.invert(px), MEANS),
      std: within(1 / (Math.sqrt(2 * Math.PI) * height), WIDTHS),
    });
  });
  return () => {
    const example = model.get("example");
    const [mean, std] = [model.get("mean"), model.get("std")];
    const { posterior } = boundTerms(example, mean, std);
    trace("prior", example.prior_mean, example.prior_std);
    trace("posterior", posterior.mean, posterior.std);
    trace("q", mean, std);
    handle.setAttribute("cx", x(mean));
    handle.setAttribute("cy", y(Math.min(density(mean, mean, std), 1.4)));
  };
}

/** The right panel: the two terms, their sum, and the evidence. */
function drawTerms(parent, model) {
  const picture = svg("svg", { viewBox: "0 0 320 240", role: "img" }, parent);
  picture.setAttribute("aria-label", "Bars of the two terms and their sum, and the log evidence");
  const y = scale(LOWEST, 1, 208, 12);
  svg("path", { d: `M40 ${y(0)}H312`, class: "axis" }, picture);
  for (const tick of [0, -5, -10, -15]) {
    const text = svg("text", { x: 34, y: y(tick) + 4, "text-anchor": "end" }, picture);
    text.textContent = number(tick, 0);
  }
  const bars = ["action", "kl", "sum"].map((name, i) => {
    const left = 56 + 88 * i;
    const label = svg("text", { x: left + 32, y: 226, "text-anchor": "middle" }, picture);
    label.textContent = { action: "E log π", kl: "−β KL", sum: "sum" }[name];
    const bar = svg("rect", { x: left, width: 64, class: `bar ${name}` }, picture);
    const value = svg("text", { x: left + 32, "text-anchor": "middle", class: "value" }, picture);
    return { bar, value };
  });
  const evidence = svg("path", { class: "evidence" }, picture);
  const name = svg("text", { x: 176, "text-anchor": "middle" }, picture);
  name.textContent = "log evidence";
  return (terms, beta) => {
    const values = [terms.action, -beta * terms.kl, terms.action - beta * terms.kl];
    values.forEach((value, i) => {
      const end = y(Math.max(value, LOWEST));
      bars[i].bar.setAttribute("y", Math.min(end, y(0)));
      bars[i].bar.setAttribute("height", Math.abs(end - y(0)));
      bars[i].value.setAttribute("y", Math.max(Math.min(end + 14, 206), y(0) + 14));
      bars[i].value.textContent = number(value);
    });
    evidence.setAttribute("d", `M40 ${y(terms.evidence)}H312`);
    name.setAttribute("y", y(terms.evidence) - 4);
  };
}

function render({ model, el }) {
  el.classList.add("mbta-live");
  const panels = html("div", { class: "panels" }, el);
  const densities = drawDensities(panels, model);
  const bars = drawTerms(panels, model);
  const controls = html("div", { class: "controls" }, el);
  const [low, high] = MEANS;
  slider(controls, model, "mean", { label: "mean of q", min: low, max: high, step: 0.05 });
  slider(controls, model, "std", { label: "std of q", min: WIDTHS[0], max: WIDTHS[1], step: 0.05 });
  slider(controls, model, "beta", { label: "β", min: 0, max: 2, step: 0.05 });
  const said = html("p", { class: "said", "aria-live": "polite" }, el);
  follow(model, ["mean", "std", "beta", "example"], () => {
    const terms = boundTerms(model.get("example"), model.get("mean"), model.get("std"));
    const beta = model.get("beta");
    const sum = terms.action - beta * terms.kl;
    densities();
    bars(terms, beta);
    const gap = terms.evidence - (terms.action - terms.kl); // KL(q ‖ posterior), (2.9)
    said.textContent =
      `log evidence ${number(terms.evidence)}, sum ${number(sum)}; ` +
      `KL from q to the true posterior ${number(Math.abs(gap))}`;
  });
}

export default { render };
