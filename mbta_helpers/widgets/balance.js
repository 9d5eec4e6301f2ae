// A balanced divergence: posterior and prior over a few classes, and which of them moves.

import { button, follow, html, number, put, scale, slider, svg } from "./draw.js";
import { knob } from "./hands.js";
import { softmax } from "./layers.js";

const AHEAD = 3; // an arrow shows so many of the next steps' lengths
const MOST = 60; // steps

/**
 * Gradients of −E_q[evidence] + weight · B_α(q, p), (17.6), with respect to the logits of q and p.
 *
 * posterior, prior, evidence: (C,). Returns toPosterior and toPrior, (C,) each, and kl = KL(q ‖ p).
 */
export function gradients(posterior, prior, evidence, alpha, weight) {
  const [q, p] = [softmax(posterior), softmax(prior)];
  const ratio = q.map((share, c) => Math.log(share / p[c]));
  const kl = q.reduce((sum, share, c) => sum + share * ratio[c], 0);
  const mean = q.reduce((sum, share, c) => sum + share * evidence[c], 0);
  const pull = (c) => (1 - alpha) * weight * (ratio[c] - kl) - (evidence[c] - mean);
  return {
    kl,
    toPosterior: q.map((share, c) => share * pull(c)),
    toPrior: q.map((share, c) => alpha * weight * (p[c] - share)),
  };
}

/** Both logits after so many steps of gradient descent. */
export function descend({ posterior, prior }, evidence, { alpha, weight, rate }, steps) {
  let [q, p] = [posterior, prior];
  for (let i = 0; i < steps; i++) {
    const { toPosterior, toPrior } = gradients(q, p, evidence, alpha, weight);
    q = q.map((logit, c) => logit - rate * toPosterior[c]);
    p = p.map((logit, c) => logit - rate * toPrior[c]);
  }
  return { posterior: q, prior: p };
}

/** Logits with which class c has a given probability, and the others their proportions. */
export function withProbability(logits, c, probability) {
  const others = logits.filter((_, i) => i !== c);
  const top = Math.max(...others);
  const rest = top + Math.log(others.reduce((sum, logit) => sum + Math.exp(logit - top), 0));
  return logits.with(c, rest + Math.log(probability / (1 - probability)));
}

const KINDS = { posterior: "posterior q", prior: "prior p" };

function render({ model, el }) {
  el.classList.add("mbta-live");
  const classes = model.get("posterior").length;
  const panels = html("div", { class: "panels" }, el);
  const picture = svg("svg", { viewBox: "0 0 460 260", role: "group" }, panels);
  picture.setAttribute(
    "aria-label",
    "Bars of posterior and prior over the classes, with a handle on each and arrows that show " +
      "where the next steps lead",
  );
  const y = scale(0, 1, 220, 30);
  svg("path", { class: "axis", d: "M34 220H452" }, picture);
  for (const tick of [0, 0.5, 1]) {
    const text = svg("text", { x: 28, y: y(tick) + 4, "text-anchor": "end" }, picture);
    text.textContent = number(tick, 1);
  }
  const width = 410 / classes;
  for (let c = 0; c < classes; c++) {
    const text = svg("text", { x: 40 + width * (c + 0.5), y: 238, "text-anchor": "middle" }, picture);
    text.textContent = `class ${c}`;
  }
  Object.entries(KINDS).forEach(([kind, label], i) => {
    svg("rect", { class: `bar ${kind}`, x: 150 + 130 * i, y: 6, width: 14, height: 12 }, picture);
    svg("text", { x: 170 + 130 * i, y: 17 }, picture).textContent = label;
  });
  // What is set by hand is where the steps begin.
  const setting = () => ({
    alpha: model.get("alpha"),
    weight: model.get("weight"),
    rate: model.get("rate"),
  });
  const evidence = () =>
    model.get("posterior").map((_, c) => (c === model.get("picture") ? model.get("evidence") : 0));
  const now = () => {
    const start = { posterior: model.get("posterior"), prior: model.get("prior") };
    return descend(start, evidence(), setting(), model.get("steps"));
  };
  const parts = Object.keys(KINDS).flatMap((kind, i) =>
    Array.from({ length: classes }, (_, c) => {
      const left = 40 + width * (c + 0.5) + (i ? 4 : -width / 2 + 10);
      const size = width / 2 - 14;
      const bar = svg("rect", { class: `bar ${kind}`, x: left, width: size }, picture);
      const next = svg("path", { class: "next" }, picture);
      const move = knob(picture, {
        label: `${KINDS[kind]} of class ${c}`,
        kind,
        min: 0.01,
        max: 0.97,
        step: 0.02,
        now: () => softmax(now()[kind])[c],
        set: (value) => put(model, { ...now(), [kind]: withProbability(now()[kind], c, value), steps: 0 }),
        place: (value) => [left + size / 2, y(value)],
        read: ([, py]) => y.invert(py),
      });
      return { kind, c, bar, next, move, middle: left + size / 2 };
    }),
  );
  const controls = html("div", { class: "controls" }, el);
  slider(controls, model, "alpha", { label: "balance α", min: 0, max: 1, step: 0.05 });
  slider(controls, model, "evidence", { label: "evidence", min: 0, max: 3, step: 0.1, decimals: 1 });
  slider(controls, model, "steps", { label: "steps", min: 0, max: MOST, step: 1, decimals: 0 });
  const below = html("div", { class: "controls" }, el);
  button(below, "One step", () => put(model, { steps: Math.min(model.get("steps") + 1, MOST) }));
  const first = { posterior: model.get("posterior"), prior: model.get("prior") };
  button(below, "Start again", () => put(model, { ...first, steps: 0 }));
  const said = html("p", { class: "said", "aria-live": "polite" }, el);
  const detail = html("p", { class: "said detail" }, el);

  follow(model, ["posterior", "prior", "alpha", "evidence", "steps"], () => {
    const here = now();
    const { kl, toPosterior, toPrior } = gradients(
      here.posterior, here.prior, evidence(), model.get("alpha"), model.get("weight"),
    ); // prettier-ignore
    const there = descend(here, evidence(), setting(), 1);
    for (const { kind, c, bar, next, move, middle } of parts) {
      const [value, after] = [here, there].map((both) => softmax(both[kind])[c]);
      bar.setAttribute("y", y(value));
      bar.setAttribute("height", 220 - y(value));
      const end = y(Math.min(Math.max(value + AHEAD * (after - value), 0), 1));
      const tip = end < y(value) ? 5 : -5;
      const seen = Math.abs(end - y(value)) > 1.5;
      next.setAttribute("d", seen ? `M${middle} ${y(value)}V${end}m-4 ${tip}l4 ${-tip}l4 ${tip}` : "");
      move();
    }
    const length = (gradient) => Math.hypot(...gradient);
    said.textContent =
      `after ${model.get("steps")} steps: KL from posterior to prior ${number(kl, 3)} nats; gradient ` +
      `${number(length(toPosterior), 3)} to the posterior, ${number(length(toPrior), 3)} to the prior`;
    detail.textContent =
      `The picture speaks for class ${model.get("picture")}. Arrows: the next step, ` +
      `${AHEAD} times as long.`;
  });
}

export default { render };
