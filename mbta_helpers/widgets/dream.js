// A dream: chapter 14's memory draws the next code from its mixture, at a temperature.

import {
  arrows, axisBelow, button, follow, html, line, number, put, scale, slider, svg,
} from "./draw.js";
import { affine, layers, softmax } from "./layers.js";
import { canvas, paint } from "./pixels.js";
import { normals, uniforms } from "./random.js";
import { readWeights, unpack } from "./weights.js";

const ACTIONS = ["left", "stay", "right"];
const LONGEST = 40; // steps
const FILM = 14; // frames in a row
const DRAWS = 60;
const WIDEST = [-5, 3]; // of log σ
const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** The memory (14.3) after a code and an action; memory: {h, cell}, (H,) each. */
export function remember(tensors, { h, cell }, code, action) {
  const input = [...code, ...ACTIONS.map((_, i) => (i === action ? 1 : 0))];
  const from = affine(tensors["lstm.weight_ih_l0"], tensors["lstm.bias_ih_l0"], input);
  const past = affine(tensors["lstm.weight_hh_l0"], tensors["lstm.bias_hh_l0"], h);
  const size = h.length;
  const gate = (k, i) => from[k * size + i] + past[k * size + i];
  const next = Array.from(cell, (c, i) =>
    sigmoid(gate(1, i)) * c + sigmoid(gate(0, i)) * Math.tanh(gate(2, i)),
  ); // prettier-ignore
  return { h: next.map((c, i) => sigmoid(gate(3, i)) * Math.tanh(c)), cell: next };
}

/** The mixture (14.8) with one group: logits (K,), mean and std (Z, K). */
export function predict(tensors, h, size, parts) {
  const out = affine(tensors["head.weight"], tensors["head.bias"], h);
  const row = (i) => Array.from(out.slice(i * parts, (i + 1) * parts));
  const std = (value) => Math.exp(Math.min(Math.max(value, WIDEST[0]), WIDEST[1]));
  return {
    mean: Array.from({ length: size }, (_, i) => row(i)),
    std: Array.from({ length: size }, (_, i) => row(size + i).map(std)),
    logits: row(2 * size),
  };
}

/** A code at a temperature (14.11): the part by Gumbel noise, then noise times √τ. */
export function sample({ logits, mean, std }, tau, uniform, normal) {
  const scores = logits.map((logit) => {
    const u = Math.min(Math.max(uniform(), 1e-10), 1 - 1e-7);
    return logit / tau - Math.log(-Math.log(u));
  });
  const k = scores.indexOf(Math.max(...scores));
  return mean.map((row, i) => row[k] + Math.sqrt(tau) * std[i][k] * normal());
}

/** Density of one number of the code at a temperature: Σ_k π_k(τ) N(z; μ_k, τ σ_k²). */
export function density({ logits, mean, std }, i, tau, z) {
  return softmax(logits.map((logit) => logit / tau)).reduce((sum, share, k) => {
    const width = Math.sqrt(tau) * std[i][k];
    const bell = Math.exp(-0.5 * ((z - mean[i][k]) / width) ** 2) / (width * Math.sqrt(2 * Math.PI));
    return sum + share * bell;
  }, 0);
}

/**
 * The codes of a dream, from the first one on, and what the memory knows after the last action.
 *
 * actions: (T,). Returns codes (T + 1, Z), ends (T,): chances that a step ended the episode, and
 * mixture: what the last code was drawn from, or of staying, where there is no action yet.
 */
export function dream(tensors, start, parts, actions, tau, uniform, normal) {
  const hidden = tensors["lstm.weight_hh_l0"].shape[1];
  let memory = { h: new Array(hidden).fill(0), cell: new Array(hidden).fill(0) };
  const [codes, ends] = [[start], []];
  for (const action of actions) {
    memory = remember(tensors, memory, codes.at(-1), action);
    const mixture = predict(tensors, memory.h, start.length, parts);
    codes.push(sample(mixture, tau, uniform, normal));
    ends.push(sigmoid(layers(tensors, "end", [...memory.h, ...codes.at(-1)])[0]));
  }
  const ahead = remember(tensors, memory, codes.at(-1), 1); // what comes if the player stays
  return { codes, ends, mixture: predict(tensors, ahead.h, start.length, parts) };
}

/** Shares of the parts, and the density of one number of the code; functions to redraw them. */
function drawMixture(parent, parts, side) {
  const box = html("div", { class: "column" }, parent);
  const picture = svg("svg", { viewBox: "0 0 320 96", role: "img" }, box);
  picture.setAttribute("aria-label", "Bars: the share of each part of the mixture at this temperature");
  const width = 320 / parts;
  const y = scale(0, 1, 92, 18);
  const bars = Array.from({ length: parts }, (_, k) => {
    const middle = width * (k + 0.5);
    const bar = svg("rect", { class: "bar sum", x: middle - 16, width: 32 }, picture);
    const text = svg("text", { x: middle, "text-anchor": "middle" }, picture);
    return { bar, text };
  });
  const seen = canvas(box, side, parts, "The picture in the middle of each part");
  const curves = svg("svg", { viewBox: "0 0 320 150", role: "img" }, box);
  curves.setAttribute(
    "aria-label",
    "The density of one number of the next code at this temperature and at 1, and draws from it",
  );
  const curve = {};
  for (const name of ["prior", "q", "drawn"]) curve[name] = svg("path", { class: `curve ${name}` }, curves);
  const axis = svg("g", {}, curves);
  return (mixture, tau, codes) => {
    const shares = softmax(mixture.logits.map((logit) => logit / tau));
    bars.forEach(({ bar, text }, k) => {
      bar.setAttribute("y", y(shares[k]));
      bar.setAttribute("height", 92 - y(shares[k]));
      text.setAttribute("y", y(shares[k]) - 4);
      text.textContent = number(shares[k]);
    });
    const i = widest(mixture);
    const edges = mixture.mean[i].flatMap((m, k) => [-3, 3].map((side) => m + side * mixture.std[i][k]));
    const [low, high] = [Math.min(...edges), Math.max(...edges)];
    const ticks = [...Array(9).keys()].map((n) => Math.ceil(low) + n).filter((n) => n <= high);
    const x = scale(low, high, 10, 310);
    axis.replaceChildren();
    axisBelow(axis, x, 108, ticks.length > 1 ? ticks : [low, high], `number ${i + 1} of the next code`);
    const top = scale(0, 1, 104, 8);
    for (const [name, at] of [["prior", 1], ["q", tau]]) { // prettier-ignore
      const grid = Array.from({ length: 241 }, (_, n) => low + ((high - low) * n) / 240);
      const heights = grid.map((z) => density(mixture, i, at, z));
      const most = Math.max(...heights); // each curve fills the panel: what counts is its shape
      curve[name].setAttribute("d", line(grid.map((z, n) => [x(z), top(heights[n] / most)])));
    }
    const within = (z) => Math.min(Math.max(x(z), 4), 316);
    curve.drawn.setAttribute("d", codes.map((code) => `M${within(code[i])} 106v-8`).join(""));
    return { shares, seen };
  };
}

/** The number of the code in which the parts differ most, against their own width. */
function widest({ logits, mean, std }) {
  const shares = softmax(logits);
  const spread = mean.map((row, i) => {
    const centre = row.reduce((sum, m, k) => sum + shares[k] * m, 0);
    const between = row.reduce((sum, m, k) => sum + shares[k] * (m - centre) ** 2, 0);
    return between / row.reduce((sum, _, k) => sum + shares[k] * std[i][k] ** 2, 0);
  });
  return spread.indexOf(Math.max(...spread));
}

function render({ model, el }) {
  el.classList.add("mbta-live");
  const said = html("p", { class: "said", "aria-live": "polite" });
  const tensors = readWeights(unpack(model.get("packed"))); // throws where they are damaged
  const start = model.get("start");
  const parts = tensors["head.bias"].data.length / (2 * start.length + 1);
  const side = Math.sqrt(tensors["decoder.2.bias"].data.length);
  const decode = (code) => layers(tensors, "decoder", code);

  const panels = html("div", { class: "panels" }, el);
  const left = html("div", { class: "column" }, panels);
  const stage = html("div", { class: "stage", tabindex: 0, role: "application" }, left);
  stage.setAttribute(
    "aria-label",
    "The dreamt picture. The arrow keys left, right and down let the player go or stay for a step.",
  );
  const now = canvas(stage, side, 1, "The dreamt picture");
  const steps = html("div", { class: "controls" }, left);
  const mixtureOf = drawMixture(panels, parts, side);
  const film = canvas(el, side, FILM, "The last pictures of the dream, from left to right");
  const controls = html("div", { class: "controls" }, el);
  slider(controls, model, "tau", { label: "τ", min: 0.05, max: 2, step: 0.05 });
  el.append(said);
  const detail = html("p", { class: "said detail" }, el);

  const go = (...taken) => put(model, { actions: [...model.get("actions"), ...taken].slice(0, LONGEST) });
  ACTIONS.forEach((name, action) => button(steps, name[0].toUpperCase() + name.slice(1), () => go(action)));
  button(steps, "Stay for 10", () => go(...new Array(10).fill(1)));
  const fresh = (change) => put(model, { actions: [], ...change });
  button(steps, "Begin again", () => fresh({}));
  button(steps, "Other draws", () => put(model, { seed: model.get("seed") + 1 }));
  arrows(stage, ([right]) => go(1 + right));

  follow(model, ["actions", "tau", "seed"], () => {
    const [actions, tau, seed] = ["actions", "tau", "seed"].map((name) => model.get(name));
    const draw = [uniforms(seed), normals(seed + 1000)];
    const { codes, ends, mixture } = dream(tensors, start, parts, actions, tau, ...draw);
    const pictures = codes.map(decode);
    paint(now, [pictures.at(-1)], side);
    paint(film, pictures.slice(-FILM), side);
    const next = Array.from({ length: DRAWS }, () => sample(mixture, tau, ...draw));
    const { shares, seen } = mixtureOf(mixture, tau, next);
    paint(seen, shares.map((_, k) => decode(mixture.mean.map((row) => row[k]))), side);
    const over = ends.length ? `, chance that it was the last ${number(ends.at(-1))}` : "";
    said.textContent =
      `step ${actions.length}${over}; if the player stays, the likeliest next picture has the share ` +
      `${number(Math.max(...shares))}`;
    detail.textContent =
      "Bars: the parts of what comes next, each with its picture. Curve: their density along one " +
      "number of the code, dashes: draws, grey: τ = 1.";
  });
}

export default { render };
