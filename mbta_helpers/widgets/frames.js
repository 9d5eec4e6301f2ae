// Imagined frames beside the true ones: one moment at a time, with the error over time.

import {
  axisBelow, arrows, button, calm, follow, html, line, number, pause, put, scale, slider, svg,
} from "./draw.js";
import { canvas, paint } from "./pixels.js";
import { unpack } from "./weights.js";

/** Pictures in [0, 1] from bytes that lie one after another: (count, size). */
export function picturesOf(view, size) {
  const count = view.byteLength / size;
  const picture = (n) => Array.from({ length: size }, (_, i) => view.getUint8(n * size + i) / 255);
  return Array.from({ length: count }, (_, n) => picture(n));
}

/** Σ (a − b)² over pixels. */
export const squaredError = (one, other) =>
  one.reduce((sum, value, i) => sum + (value - other[i]) ** 2, 0);

function render({ model, el }) {
  el.classList.add("mbta-live");
  const [side, steps, seen] = ["side", "steps", "seen"].map((name) => model.get(name));
  const all = picturesOf(unpack(model.get("pictures")), side * side);
  const clips = all.length / (2 * steps);
  const at = (clip, kind, t) => all[(2 * clip + kind) * steps + t];
  const panels = html("div", { class: "panels stage", tabindex: 0, role: "application" }, el);
  panels.setAttribute(
    "aria-label",
    "The true picture, the model’s, and their difference. The arrow keys left and right go through time.",
  );
  const names = ["truth", "model", "difference"];
  const surfaces = names.map((name) => {
    const box = html("div", { class: "frame" }, panels);
    const surface = canvas(box, side, 1, `The picture: ${name}`);
    return { surface, caption: html("div", { class: "said" }, box, name) };
  });
  const chart = html("div", { class: "panels" }, el);
  const picture = svg("svg", { viewBox: "0 0 420 150", role: "img" }, chart);
  picture.setAttribute("aria-label", "Squared error of the model’s picture, and of a dark one, over time");
  const x = scale(0, steps - 1, 40, 408);
  const fifths = [...Array(steps).keys()].filter((t) => t % 5 === 0 && t < steps - 2);
  axisBelow(picture, x, 112, [...fifths, steps - 1], "t");
  svg("path", { class: "evidence", d: `M${x(seen - 0.5)} 8V112` }, picture);
  const top = svg("text", { x: 36, y: 16, "text-anchor": "end" }, picture);
  const dark = svg("path", { class: "curve prior" }, picture);
  const curve = svg("path", { class: "curve q" }, picture);
  const mark = svg("circle", { class: "mean", r: 5 }, picture);
  const controls = html("div", { class: "controls" }, el);
  const whole = { step: 1, decimals: 0 };
  slider(controls, model, "t", { label: "t", min: 0, max: steps - 1, ...whole });
  slider(controls, model, "clip", { label: "clip", min: 0, max: clips - 1, ...whole });
  const go = (t) => put(model, { t: Math.min(Math.max(t, 0), steps - 1) });
  let playing = 0;
  button(controls, "Play", async () => {
    const own = ++playing;
    for (let t = 0; t < steps && own === playing; t++) {
      go(t);
      await pause(calm() ? 20 : 250);
    }
  });
  const said = html("p", { class: "said", "aria-live": "polite" }, el);
  html("p", { class: "said detail" }, el).textContent =
    "Curve: squared error of the model’s picture; grey: of a dark one. Dashes: the model sees no more.";
  arrows(panels, ([right]) => go(model.get("t") + right));
  follow(model, ["t", "clip"], () => {
    const [t, clip] = [model.get("t"), model.get("clip")];
    const [truth, ours] = [at(clip, 0, t), at(clip, 1, t)];
    paint(surfaces[0].surface, [truth], side);
    paint(surfaces[1].surface, [ours], side);
    paint(surfaces[2].surface, [truth.map((value, i) => Math.abs(value - ours[i]))], side);
    surfaces[1].caption.textContent = t < seen ? "model, which sees" : "model, which imagines";
    const times = [...Array(steps).keys()];
    const errors = times.map((n) => squaredError(at(clip, 0, n), at(clip, 1, n)));
    const blank = times.map((n) => squaredError(at(clip, 0, n), new Array(side * side).fill(0)));
    const most = Math.max(...errors, ...blank);
    const y = scale(0, most, 112, 10);
    top.textContent = number(most, 1);
    curve.setAttribute("d", line(errors.map((value, n) => [x(n), y(value)])));
    dark.setAttribute("d", line(blank.map((value, n) => [x(n), y(value)])));
    mark.setAttribute("cx", x(t));
    mark.setAttribute("cy", y(errors[t]));
    said.textContent =
      `t = ${t}, ${t < seen ? "seen" : `${t - seen + 1} steps without a picture`}: squared error ` +
      `${number(errors[t])}, of a dark picture ${number(blank[t])}`;
  });
}

export default { render };
