// Two-hot codes: numbers as weights on neighbouring bins, and what the weights decode to.

import {
  arrows, axisBelow, button, choice, follow, html, number, pointer, put, scale, slider, svg,
} from "./draw.js";
import { drag, knob } from "./hands.js";

const [LEFT, RIGHT, LOW, HIGH] = [14, 386, 190, 34]; // of the picture's units
const COUNTS = [9, 17, 33, 65];
const SPACES = { values: "between values", symlog: "in symlog space" };

export const symlog = (x) => Math.sign(x) * Math.log1p(Math.abs(x));
export const symexp = (x) => Math.sign(x) * Math.expm1(Math.abs(x));

/** `count` even steps in [−extent, extent], exactly symmetric: the bins, in symlog. */
export function evenBins(count, extent) {
  const half = (count - 1) / 2;
  return Array.from({ length: count }, (_, k) => (extent * (k - half)) / half);
}

/** Weights on rising bins that have x as their mean, (18.4); beyond the ends, those of the end. */
export function twohot(x, bins) {
  const low = Math.min(Math.max(bins.findLastIndex((bin) => bin <= x), 0), bins.length - 2);
  const weight = Math.min(Math.max((x - bins[low]) / (bins[low + 1] - bins[low]), 0), 1);
  const code = bins.map(() => 0);
  code[low] = 1 - weight;
  code[low + 1] = weight;
  return code;
}

/**
 * The mean code of outcomes, given by their symlog, with their chances.
 *
 * even: the bins in symlog. space: "values" for bins symexp(even), "symlog" for even bins.
 */
export function encode(even, outcomes, chances, space) {
  const bins = space === "values" ? even.map(symexp) : even;
  const codes = outcomes.map((u) => twohot(space === "values" ? symexp(u) : u, bins));
  return even.map((_, k) => codes.reduce((sum, code, i) => sum + chances[i] * code[k], 0));
}

/** The number that weights stand for: Σ p b, or symexp of the mean of even bins (18.15). */
export function decode(even, weights, space) {
  const bins = space === "values" ? even.map(symexp) : even;
  const mean = bins.reduce((sum, bin, k) => sum + weights[k] * bin, 0);
  return space === "values" ? mean : symexp(mean);
}

/** Weights with one of them set to a share of all, the others in proportion. */
export function withWeight(weights, k, share) {
  const others = 1 - weights[k];
  if (others < 1e-9) return weights.map((_, i) => (i === k ? share : (1 - share) / (weights.length - 1)));
  return weights.map((weight, i) => (i === k ? share : (weight * (1 - share)) / others));
}

/** A number with four digits that count. */
const told = (x) => {
  const size = Math.abs(x);
  return number(x, size < 1e-9 ? 0 : Math.min(Math.max(3 - Math.floor(Math.log10(size)), 0), 4));
};

function render({ model, el }) {
  el.classList.add("mbta-live");
  const top = html("div", { class: "controls" }, el);
  const showCount = choice(top, "Bins", Object.fromEntries(COUNTS.map((n) => [n, `${n} bins`])), (n) =>
    put(model, { count: Number(n), edited: [] }),
  );
  const showSpace = choice(top, "Where a number is split", SPACES, (space) =>
    put(model, { space, edited: [] }),
  );
  const panels = html("div", { class: "panels" }, el);
  const picture = svg("svg", { viewBox: "0 0 400 232", role: "application", class: "bins" }, panels);
  picture.setAttribute("tabindex", 0);
  picture.setAttribute(
    "aria-label",
    "Weights on the bins. The arrow keys left and right choose a bin, up and down change its weight.",
  );
  const extent = model.get("extent");
  const x = scale(-extent, extent, LEFT, RIGHT);
  const y = scale(0, 1, LOW, HIGH);
  const ticks = Array.from({ length: 2 * extent + 1 }, (_, i) => i - extent);
  axisBelow(picture, x, LOW, ticks.filter((tick) => tick % 2 === 0), "symlog of the number");
  const bars = svg("g", {}, picture);
  const marks = {};
  for (const name of ["wanted", "raw", "squashed"]) marks[name] = svg("path", { class: name }, picture);
  const knobs = [0, 1].map((i) => {
    const label = ["symlog y", "symlog y′"][i];
    const set = (value) => put(model, { outcomes: model.get("outcomes").with(i, value), edited: [] });
    const range = { label, min: -extent, max: extent, step: 0.1 };
    const now = () => model.get("outcomes")[i];
    return knob(picture, { ...range, now, set, place: (u) => [x(u), 18], read: ([px]) => x.invert(px) });
  });
  const sliders = html("div", { class: "controls" }, el);
  slider(sliders, model, "chance", { label: "chance of y", min: 0, max: 1, step: 0.05 });
  button(sliders, "Encode y and y′ again", () => put(model, { edited: [] }));
  const said = html("p", { class: "said", "aria-live": "polite" }, el);
  const detail = html("p", { class: "said detail" }, el);

  const chances = () => [model.get("chance"), 1 - model.get("chance")];
  const even = () => evenBins(model.get("count"), extent);
  const current = () =>
    model.get("edited").length
      ? model.get("edited")
      : encode(even(), model.get("outcomes"), chances(), model.get("space"));
  const edit = (k, share) =>
    put(model, { edited: withWeight(current(), k, Math.min(Math.max(share, 0), 1)) });
  let chosen = (model.get("count") - 1) / 2;
  bars.addEventListener("pointerdown", (event) => {
    chosen = Number(event.target.dataset.bin);
    edit(chosen, y.invert(pointer(event, picture)[1]));
  });
  drag(bars, picture, ([, py]) => edit(chosen, y.invert(py)));
  arrows(picture, ([right, down]) => {
    if (document.activeElement !== picture) return; // a handle has the keys
    chosen = Math.min(Math.max(chosen + right, 0), model.get("count") - 1);
    if (down) edit(chosen, current()[chosen] - 0.05 * down);
    else redraw();
  });
  model.on("change:count", () => (chosen = (model.get("count") - 1) / 2));
  const redraw = () => {
    const [places, weights, space] = [even(), current(), model.get("space")];
    showCount(model.get("count"));
    showSpace(space);
    const width = (0.8 * (RIGHT - LEFT)) / places.length;
    if (bars.childElementCount !== 2 * places.length) {
      bars.replaceChildren();
      places.forEach((u, k) => {
        const at = { x: x(u) - width / 2, width, "data-bin": k };
        svg("rect", { ...at, class: "bar sum" }, bars);
        svg("rect", { ...at, class: "grip", y: HIGH, height: LOW - HIGH }, bars); // easier to hit
      });
    }
    places.forEach((_, k) => {
      const bar = bars.children[2 * k];
      bar.setAttribute("y", y(weights[k]));
      bar.setAttribute("height", LOW - y(weights[k]));
      bar.classList.toggle("chosen-bin", k === chosen);
    });
    knobs.forEach((move) => move());
    const outcomes = model.get("outcomes");
    const wanted = outcomes.reduce((sum, u, i) => sum + chances()[i] * symexp(u), 0);
    const [raw, squashed] = ["values", "symlog"].map((name) => decode(places, weights, name));
    marks.wanted.setAttribute("d", `M${x(symlog(wanted))} ${LOW}V${HIGH}`);
    marks.raw.setAttribute("d", `M${x(symlog(raw))} ${LOW}V${HIGH + 12}`);
    marks.squashed.setAttribute("d", `M${x(symlog(squashed))} ${LOW}V${HIGH + 12}`);
    const decoded = space === "values" ? raw : squashed;
    said.textContent = model.get("edited").length
      ? `by hand: these weights stand for ${told(raw)} by their values, ${told(squashed)} in symlog space`
      : `mean of the outcomes ${told(wanted)}; decoded ${SPACES[space]}: ${told(decoded)}`;
    detail.textContent =
      `y = ${told(symexp(outcomes[0]))}, y′ = ${told(symexp(outcomes[1]))}. ` +
      `Bin ${chosen + 1} of ${places.length}, at ${told(symexp(places[chosen]))}, has weight ` +
      `${number(weights[chosen])}. Dotted line: the mean; green: by values; red: in symlog space.`;
  };
  follow(model, ["outcomes", "chance", "count", "space", "edited"], redraw);
}

export default { render };
