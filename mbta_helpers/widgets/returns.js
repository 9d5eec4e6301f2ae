// λ-returns: an imagined trajectory whose rewards, values and end can be changed by hand.

import { choice, follow, html, line, number, put, scale, slider, svg } from "./draw.js";
import { knob } from "./hands.js";

const RANGE = [-1, 3]; // of rewards and values

/** G_n = r_n + d_n ((1 − λ) v_{n+1} + λ G_{n+1}) with G_H = v_H (16.5); (H,). */
export function lambdaReturns(rewards, values, discounts, lam) {
  const returns = [];
  let following = values[rewards.length];
  for (let n = rewards.length - 1; n >= 0; n--) {
    following = rewards[n] + discounts[n] * ((1 - lam) * values[n + 1] + lam * following);
    returns.unshift(following);
  }
  return returns;
}

/** The n-step returns of s_0 for n = 1 … H: rewards of n steps, then the critic. */
export function stepReturns(rewards, values, discounts) {
  let [sum, factor] = [0, 1];
  return rewards.map((reward, n) => {
    sum += factor * reward;
    factor *= discounts[n];
    return sum + factor * values[n + 1];
  });
}

/** Their weights in the λ-return (16.4): (1 − λ) λ^{n−1}, and λ^{H−1} for the last. */
export const stepWeights = (count, lam) =>
  Array.from({ length: count }, (_, i) => (i < count - 1 ? 1 - lam : 1) * lam ** i);

/** γ for each step, and 0 for the one that ends the episode (0: none, n: the n-th). */
export const discountsOf = (count, gamma, end) =>
  Array.from({ length: count }, (_, n) => (n === end - 1 ? 0 : gamma));

/** The left panel: rewards, values and λ-returns over time; returns a function to redraw it. */
function drawTrajectory(parent, model) {
  const picture = svg("svg", { viewBox: "0 0 360 250", role: "group" }, parent);
  picture.setAttribute(
    "aria-label",
    "The trajectory: handles for each reward and each value, and the line of the λ-returns",
  );
  const count = model.get("rewards").length;
  const x = scale(0, count, 34, 336);
  const y = scale(...RANGE, 210, 26);
  svg("path", { class: "axis", d: `M22 ${y(0)}H350` }, picture);
  for (const tick of [-1, 0, 1, 2, 3]) {
    const text = svg("text", { x: 18, y: y(tick) + 4, "text-anchor": "end" }, picture);
    text.textContent = number(tick, 0);
  }
  for (let n = 0; n <= count; n++) {
    const text = svg("text", { x: x(n), y: 230, "text-anchor": "middle" }, picture);
    text.textContent = `s${"₀₁₂₃₄₅₆₇₈₉"[n]}`;
  }
  const over = svg("rect", { class: "over", y: 26, height: 184 }, picture);
  const line0 = svg("path", { class: "curve returns" }, picture);
  const dots = model.get("rewards").map(() => svg("circle", { r: 4, class: "return" }, picture));
  const bars = model.get("rewards").map(() => svg("rect", { class: "bar action", width: 12 }, picture));
  const hand = (name, n, place, label, kind) => {
    const set = (value) => put(model, { [name]: model.get(name).with(n, value) });
    const now = () => model.get(name)[n];
    const range = { label, kind, min: RANGE[0], max: RANGE[1], step: 0.1 };
    return knob(picture, { ...range, now, set, place, read: ([, py]) => y.invert(py) });
  };
  const hands = [
    ...dots.map((_, n) => hand("rewards", n, (r) => [x(n + 0.5), y(r)], `reward r${n}`, "reward")),
    ...model.get("values").slice(1).map((_, n) =>
      hand("values", n + 1, (v) => [x(n + 1), y(v)], `value of s${n + 1}`, "value"),
    ),
  ]; // prettier-ignore
  return (returns) => {
    const [rewards, end] = [model.get("rewards"), model.get("end")];
    line0.setAttribute("d", line(returns.map((value, n) => [x(n), y(value)])));
    returns.forEach((value, n) => {
      dots[n].setAttribute("cx", x(n));
      dots[n].setAttribute("cy", y(value));
    });
    bars.forEach((bar, n) => {
      bar.setAttribute("x", x(n + 0.5) - 6);
      bar.setAttribute("y", Math.min(y(rewards[n]), y(0)));
      bar.setAttribute("height", Math.abs(y(rewards[n]) - y(0)));
    });
    over.setAttribute("x", x(end ? end - 0.3 : count));
    over.setAttribute("width", end ? 352 - x(end - 0.3) : 0);
    hands.forEach((move) => move());
  };
}

/** The right panel: weights of the n-step returns, and their numbers; a function to redraw it. */
function drawWeights(parent, count) {
  const picture = svg("svg", { viewBox: "0 0 320 250", role: "img" }, parent);
  picture.setAttribute("aria-label", "Bars: the weight of each n-step return in the λ-return of s₀");
  const y = scale(0, 1, 200, 26);
  svg("path", { class: "axis", d: "M30 200H312" }, picture);
  for (const tick of [0, 0.5, 1]) {
    const text = svg("text", { x: 26, y: y(tick) + 4, "text-anchor": "end" }, picture);
    text.textContent = number(tick, 1);
  }
  svg("text", { x: 171, y: 244, "text-anchor": "middle" }, picture).textContent =
    "n, and the n-step return of s₀";
  const parts = Array.from({ length: count }, (_, i) => {
    const middle = 30 + (282 * (i + 0.5)) / count;
    const bar = svg("rect", { class: "bar sum", x: middle - 16, width: 32 }, picture);
    svg("text", { x: middle, y: 214, "text-anchor": "middle" }, picture).textContent = i + 1;
    const value = svg("text", { x: middle, y: 229, "text-anchor": "middle", class: "value" }, picture);
    return { bar, value };
  });
  return (weights, steps) =>
    parts.forEach(({ bar, value }, i) => {
      bar.setAttribute("y", y(weights[i]));
      bar.setAttribute("height", 200 - y(weights[i]));
      value.textContent = number(steps[i]);
    });
}

function render({ model, el }) {
  el.classList.add("mbta-live");
  const count = model.get("rewards").length;
  const panels = html("div", { class: "panels" }, el);
  const trajectory = drawTrajectory(panels, model);
  const shares = drawWeights(panels, count);
  const controls = html("div", { class: "controls" }, el);
  slider(controls, model, "lam", { label: "λ", min: 0, max: 1, step: 0.05 });
  slider(controls, model, "gamma", { label: "γ", min: 0, max: 1, step: 0.01 });
  const below = html("div", { class: "controls" }, el);
  html("span", {}, below, "the episode ends in");
  const places = { 0: "no state" };
  for (let n = 1; n <= count; n++) places[n] = `s${"₀₁₂₃₄₅₆₇₈₉"[n]}`;
  const end = (n) => put(model, { end: Number(n) });
  const showEnd = choice(below, "The episode ends in", places, end);
  const said = html("p", { class: "said", "aria-live": "polite" }, el);
  const key = "Green: rewards. Blue: the critic’s values. Orange line: λ-returns. ";
  const detail = html("p", { class: "said detail" }, el);
  const names = ["rewards", "values", "lam", "gamma", "end"];
  follow(model, names, () => {
    const [rewards, values, lam, gamma, end] = names.map((name) => model.get(name));
    const discounts = discountsOf(count, gamma, end);
    const returns = lambdaReturns(rewards, values, discounts, lam);
    trajectory(returns);
    const [weights, steps] = [stepWeights(count, lam), stepReturns(rewards, values, discounts)];
    shares(weights, steps);
    showEnd(end);
    const sum = weights.map((w, i) => `${number(w)} · ${number(steps[i])}`).join(" + ");
    said.textContent = `λ-return of s₀: ${number(returns[0], 3)}`;
    detail.textContent = `${key}${sum.replaceAll("+ −", "− ")} = ${number(returns[0], 3)}`;
  });
}

export default { render };
