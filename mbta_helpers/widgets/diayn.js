// A discovered skill from any start: the policy's way through the square, and what names it.

import {
  arrows, choice, follow, html, line, number, pointer, put, scale, slider, svg,
} from "./draw.js";
import { layers, softmax } from "./layers.js";
import { normals } from "./random.js";
import { readWeights, unpack } from "./weights.js";

const SIDE = 360; // of the picture's units
const FIELDS = 24; // along a side, of the map of the likeliest skill
const SAMPLES = 12; // ways with drawn actions

/** One step in [−1, 1]²: an action, cut off at ±1, moves the point by stride times itself. */
export const stepSquare = (place, action, stride) =>
  place.map((x, i) => {
    const cut = Math.min(Math.max(action[i], -1), 1);
    return Math.min(Math.max(x + stride * cut, -1), 1);
  });

/** The skill's action: tanh of the Gaussian's mean, or of a draw from it, where `normal` is given. */
export function act(tensors, place, skill, skills, [low, high], normal = null) {
  const code = Array.from({ length: skills }, (_, i) => (i === skill ? 1 : 0));
  const out = layers(tensors, "actor", [...place, ...code]);
  return place.map((_, i) => {
    const std = Math.exp(Math.min(Math.max(out[place.length + i], low), high));
    return Math.tanh(out[i] + (normal ? std * normal() : 0));
  });
}

/** The places passed in so many steps, the start first. */
export function rollOut(tensors, world, start, skill, normal = null) {
  const path = [start];
  for (let t = 0; t < world.steps; t++) {
    const action = act(tensors, path[t], skill, world.skills, world.log_std, normal);
    path.push(stepSquare(path[t], action, world.stride));
  }
  return path;
}

/** q(z|s), (n,): how likely the discriminator finds each skill in a place. */
export const named = (tensors, place) => softmax(layers(tensors, "discriminator", place));

/** The square on the left; returns the picture, its scales, and a function to redraw it. */
function drawSquare(parent, regions, colours) {
  const picture = svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "application" }, parent);
  picture.setAttribute("class", "map ground");
  picture.setAttribute("tabindex", 0);
  picture.setAttribute(
    "aria-label",
    "The square with the way of the chosen skill. A click or the arrow keys move the start.",
  );
  const x = scale(-1, 1, 8, SIDE - 8);
  const y = scale(-1, 1, SIDE - 8, 8);
  const size = SIDE / FIELDS;
  regions.forEach((skill, i) => {
    const place = { x: size * (i % FIELDS), y: size * Math.floor(i / FIELDS), width: size, height: size };
    svg("rect", { ...place, fill: colours[skill], class: "region" }, picture);
  });
  colours.forEach((_, skill) => {
    const own = [...regions.keys()].filter((i) => regions[i] === skill);
    if (!own.length) return;
    const mean = (along) => own.reduce((sum, i) => sum + along(i) + 0.5, 0) / own.length;
    const at = { x: size * mean((i) => i % FIELDS), y: size * mean((i) => Math.floor(i / FIELDS)) + 6 };
    svg("text", { ...at, class: "name", "text-anchor": "middle" }, picture).textContent = skill;
  });
  const samples = svg("path", { class: "drawn" }, picture);
  const way = svg("path", { class: "walked" }, picture);
  const shown = svg("circle", { class: "mean", r: 6 }, picture);
  const begin = svg("circle", { class: "ball", r: 7 }, picture);
  svg("rect", { class: "cursor", width: SIDE, height: SIDE }, picture);
  const put = (circle, [px, py]) => {
    circle.setAttribute("cx", x(px));
    circle.setAttribute("cy", y(py));
  };
  const curve = (path) => line(path.map(([px, py]) => [x(px), y(py)]));
  const redraw = (path, drawn, t) => {
    way.setAttribute("d", curve(path));
    samples.setAttribute("d", drawn.map(curve).join(""));
    put(begin, path[0]);
    put(shown, path[t]);
  };
  return { picture, place: ([px, py]) => [x.invert(px), y.invert(py)], redraw };
}

/** Bars of q(z|s) on the right; returns a function to redraw them. */
function drawNames(parent, colours) {
  const picture = svg("svg", { viewBox: "0 0 320 240", role: "img" }, parent);
  picture.setAttribute("aria-label", "Bars: how likely the discriminator finds each skill");
  const y = scale(0, 1, 196, 14);
  svg("path", { class: "axis", d: "M30 196H312" }, picture);
  for (const tick of [0, 0.5, 1]) {
    const text = svg("text", { x: 26, y: y(tick) + 4, "text-anchor": "end" }, picture);
    text.textContent = number(tick, 1);
  }
  svg("text", { x: 171, y: 232, "text-anchor": "middle" }, picture).textContent = "q(z|s) of skill z";
  const width = 280 / colours.length;
  const bars = colours.map((fill, skill) => {
    const text = svg("text", { x: 30 + width * (skill + 0.5), y: 213, "text-anchor": "middle" }, picture);
    text.textContent = skill;
    const place = { x: 30 + width * (skill + 0.15), width: 0.7 * width };
    return svg("rect", { ...place, fill, class: "bar" }, picture);
  });
  return (chances) =>
    bars.forEach((bar, skill) => {
      bar.setAttribute("y", y(chances[skill]));
      bar.setAttribute("height", 196 - y(chances[skill]));
    });
}

function render({ model, el }) {
  el.classList.add("mbta-live");
  const world = model.get("world");
  const said = html("p", { class: "said", "aria-live": "polite" });
  const tensors = readWeights(unpack(model.get("packed"))); // throws where they are damaged
  const skills = [...Array(world.skills).keys()];
  const colours = skills.map((skill) => `var(--skill-${skill % 8})`);
  const regions = Array.from({ length: FIELDS ** 2 }, (_, i) => {
    const [row, column] = [Math.floor(i / FIELDS), i % FIELDS];
    const q = named(tensors, [(2 * column + 1) / FIELDS - 1, 1 - (2 * row + 1) / FIELDS]);
    return q.indexOf(Math.max(...q));
  });
  const top = html("div", { class: "controls" }, el);
  html("span", {}, top, "skill");
  const showSkill = choice(top, "Skill", Object.fromEntries(skills.map((z) => [z, z])), (z) =>
    put(model, { skill: Number(z) }),
  );
  const panels = html("div", { class: "panels" }, el);
  const square = drawSquare(panels, regions, colours);
  const bars = drawNames(panels, colours);
  const controls = html("div", { class: "controls" }, el);
  slider(controls, model, "t", { label: "after steps", min: 0, max: world.steps, step: 1, decimals: 0 });
  el.append(said);
  html("p", { class: "said detail" }, el).textContent =
    "Numbered regions: the skill that the discriminator names there. Thick: mean actions. Thin: " +
    "drawn actions.";

  const begin = (place) => put(model, { start: place.map((x) => Math.min(Math.max(x, -1), 1)) });
  square.picture.addEventListener("click", (event) =>
    begin(square.place(pointer(event, square.picture))),
  );
  arrows(square.picture, ([right, down]) => {
    const [x, y] = model.get("start");
    begin([x + 0.1 * right, y - 0.1 * down]);
  });
  follow(model, ["skill", "start", "t"], () => {
    const [skill, start, t] = ["skill", "start", "t"].map((name) => model.get(name));
    const path = rollOut(tensors, world, [...start], skill);
    const normal = normals(0);
    const drawn = Array.from({ length: SAMPLES }, () => rollOut(tensors, world, [...start], skill, normal));
    const chances = named(tensors, path[t]);
    showSkill(skill);
    square.redraw(path, drawn, t);
    bars(chances);
    const reward = Math.log(chances[skill]) + Math.log(world.skills);
    const guess = chances.indexOf(Math.max(...chances));
    said.textContent =
      `skill ${skill} after ${t} steps, at (${number(path[t][0])}, ${number(path[t][1])}): named ` +
      `${guess}; log q(z|s) − log p(z) = ${number(reward)} nats`;
  });
}

export default { render };
