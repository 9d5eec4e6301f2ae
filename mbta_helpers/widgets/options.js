// An option seen from a cell: its policy, its terminations, and its model, (9.4), exactly.

import {
  arrows, axisBelow, follow, html, number, pointer, put, scale, slider, svg,
} from "./draw.js";
import { arrow, menu, wallPath } from "./hands.js";
import { readWeights, unpack } from "./weights.js";

const UNIT = 28; // of the picture's units in a cell
const MOVES = [[-1, 0], [1, 0], [0, -1], [0, 1]]; // prettier-ignore
const LONGEST = 5000; // steps after which an option is given up
const BARS = 40; // durations that are drawn
const SHOWN = 0.02; // chances from which a cell says its share

/** Free cells [row, column] of a map, and where each of the four moves leads, (S, 4). */
export function gridOf(walls) {
  const width = walls[0].length;
  const cells = [];
  walls.forEach((row, i) => row.forEach((wall, j) => wall || cells.push([i, j])));
  const states = new Map(cells.map(([i, j], state) => [i * width + j, state]));
  const at = (i, j) => states.get(i * width + j);
  const next = cells.map(([i, j], s) => MOVES.map(([di, dj]) => at(i + di, j + dj) ?? s));
  return { cells, next, at };
}

/**
 * What an option leads to from a state, by following its distribution step by step.
 *
 * next: (S, 4). option: policy (S, 4) and termination (S,). setting: start, goal, slip ξ, gamma,
 * and early, a chance to end after any step besides β. Returns arrival = F_ω(start, ·) (S,),
 * reward = R_ω(start), ends: chances of where it ends (S,), durations: P(K = 1), P(K = 2), …, and
 * steps = E[K]. At the goal, which pays 1, the episode is over.
 */
export function optionModel(next, option, { start, goal, slip, gamma, early }) {
  const arrival = new Float64Array(next.length);
  const ends = new Float64Array(next.length);
  const durations = [];
  let here = new Float64Array(next.length);
  here[start] = 1;
  let [reward, running] = [0, 1];
  for (let k = 1; running > 1e-12 && k <= LONGEST; k++) {
    const after = new Float64Array(next.length);
    here.forEach((chance, s) => {
      if (chance === 0) return;
      const all = option.policy[s].reduce((sum, share) => sum + share, 0);
      option.policy[s].forEach((share, a) => {
        after[next[s][a]] += (chance * ((1 - slip) * share + (slip / 3) * (all - share))) / all;
      });
    });
    let over = 0;
    here = after.map((chance, s) => {
      const beta = s === goal ? 1 : 1 - (1 - early) * (1 - option.termination[s]);
      if (s === goal) reward += gamma ** (k - 1) * chance;
      else arrival[s] += gamma ** k * beta * chance;
      ends[s] += beta * chance;
      over += beta * chance;
      return (1 - beta) * chance;
    });
    durations.push(over);
    running -= over;
  }
  const steps = durations.reduce((sum, chance, k) => sum + (k + 1) * chance, 0);
  return { arrival, reward, ends, durations, steps };
}

/** Options as the figure reads them; tensors: initiation (Ω, S), policy (Ω, S, 4), termination. */
export function optionsOf(names, { initiation, policy, termination }) {
  const states = initiation.shape[1];
  return names.map((name, o) => {
    const of = ({ data }, width) => Array.from(data.slice(o * width, (o + 1) * width));
    const moves = of(policy, 4 * states);
    return {
      name,
      initiation: of(initiation, states),
      policy: Array.from({ length: states }, (_, s) => moves.slice(4 * s, 4 * s + 4)),
      termination: of(termination, states),
    };
  });
}

/** The map on the left; returns the picture, the cell of an event, and a function to redraw. */
function drawMap(parent, model, grid) {
  const walls = model.get("walls");
  const size = `0 0 ${UNIT * walls[0].length} ${UNIT * walls.length}`;
  const picture = svg("svg", { viewBox: size, class: "map", role: "application" }, parent);
  picture.setAttribute("tabindex", 0);
  picture.setAttribute(
    "aria-label",
    "The map with the option's moves, its terminations and where it ends. A click or the arrow " +
      "keys choose the cell in which it begins.",
  );
  svg("path", { class: "walls", d: wallPath(walls, UNIT) }, picture);
  const middle = ([i, j]) => [UNIT * (j + 0.5), UNIT * (i + 0.5)];
  const square = (name, [i, j], gap) => {
    const side = UNIT - 2 * gap;
    const place = { x: UNIT * j + gap, y: UNIT * i + gap, width: side, height: side };
    return svg("rect", { class: name, ...place }, picture);
  };
  const shades = grid.cells.map((cell) => square("share", cell, 0));
  const frames = grid.cells.map((cell) => square("ending", cell, 3));
  const ways = svg("path", { class: "ways" }, picture);
  const labels = grid.cells.map((cell) => {
    const [x, y] = middle(cell);
    return svg("text", { x, y: y + 4, "text-anchor": "middle" }, picture);
  });
  const [x, y] = middle(grid.cells[model.get("goal")]);
  svg("circle", { class: "goal", cx: x, cy: y, r: 5 }, picture);
  const begin = svg("circle", { class: "ball", r: 6 }, picture);
  svg("rect", { class: "cursor", width: "100%", height: "100%" }, picture);
  const redraw = (option, result) => {
    let moves = "";
    grid.cells.forEach((cell, s) => {
      const chance = result.ends[s];
      const told = chance >= SHOWN;
      shades[s].setAttribute("fill-opacity", 0.75 * Math.sqrt(chance));
      frames[s].setAttribute("stroke-opacity", option.termination[s]);
      labels[s].textContent = told ? number(100 * chance, 0) : "";
      if (told || !(option.initiation[s] || option.termination[s] < 1)) return; // never in force
      const way = [0, 0];
      option.policy[s].forEach((share, a) => {
        way[0] += share * MOVES[a][1];
        way[1] += share * MOVES[a][0];
      });
      moves += arrow(middle(cell), way, 0.6 * UNIT);
    });
    ways.setAttribute("d", moves);
    const [cx, cy] = middle(grid.cells[model.get("start")]);
    begin.setAttribute("cx", cx);
    begin.setAttribute("cy", cy);
  };
  return { picture, redraw };
}

/** The durations on the right; returns a function to redraw them. */
function drawDurations(parent) {
  const picture = svg("svg", { viewBox: "0 0 320 240", role: "img" }, parent);
  picture.setAttribute("aria-label", "Bars: the chance that the option ends after so many steps");
  const x = scale(0, BARS, 40, 310);
  axisBelow(picture, x, 200, [0, 10, 20, 30, 40], "steps K until it ends");
  const top = svg("text", { x: 36, y: 20, "text-anchor": "end" }, picture);
  svg("text", { x: 36, y: 204, "text-anchor": "end" }, picture).textContent = "0";
  const bars = Array.from({ length: BARS }, (_, k) =>
    svg("rect", { class: "bar sum", x: x(k + 0.6), width: x(0.8) - x(0) }, picture),
  );
  return (durations) => {
    const highest = Math.max(...durations.slice(0, BARS));
    const y = scale(0, highest, 200, 16);
    top.textContent = number(highest);
    bars.forEach((bar, k) => {
      bar.setAttribute("y", y(durations[k] ?? 0));
      bar.setAttribute("height", 200 - y(durations[k] ?? 0));
    });
  };
}

function render({ model, el }) {
  el.classList.add("mbta-live");
  const tensors = readWeights(unpack(model.get("packed")));
  const options = optionsOf(model.get("names"), tensors);
  const grid = gridOf(model.get("walls"));
  const top = html("div", { class: "controls" }, el);
  menu(top, model, "chosen", "option", model.get("names"));
  const panels = html("div", { class: "panels" }, el);
  const map = drawMap(panels, model, grid);
  const bars = drawDurations(panels);
  const controls = html("div", { class: "controls" }, el);
  slider(controls, model, "slip", { label: "slip ξ", min: 0, max: 0.75, step: 0.01 });
  slider(controls, model, "gamma", { label: "γ", min: 0.8, max: 1, step: 0.01 });
  slider(controls, model, "early", { label: "end early", min: 0, max: 1, step: 0.05 });
  const said = html("p", { class: "said", "aria-live": "polite" }, el);
  const detail = html("p", { class: "said detail" }, el);

  const begin = (state) => {
    if (state !== undefined && state !== model.get("goal")) put(model, { start: state });
  };
  map.picture.addEventListener("click", (event) => {
    const [x, y] = pointer(event, map.picture);
    begin(grid.at(Math.floor(y / UNIT), Math.floor(x / UNIT)));
  });
  arrows(map.picture, ([right, down]) => {
    const [i, j] = grid.cells[model.get("start")];
    const beyond = grid.at(i + 2 * down, j + 2 * right);
    const next = grid.at(i + down, j + right);
    begin(next === model.get("goal") ? beyond : next); // nothing begins at the goal
  });
  const names = ["chosen", "start", "slip", "gamma", "early"];
  follow(model, names, () => {
    const [chosen, start, slip, gamma, early] = names.map((name) => model.get(name));
    const option = options[chosen];
    const setting = { start, goal: model.get("goal"), slip, gamma, early };
    const result = optionModel(grid.next, option, setting);
    map.redraw(option, result);
    bars(result.durations);
    const [row, column] = grid.cells[start];
    const total = result.arrival.reduce((sum, value) => sum + value, 0);
    const may = option.initiation[start] ? "" : " (outside its initiation set)";
    const lasting = 1 - result.durations.reduce((sum, chance) => sum + chance, 0);
    said.textContent =
      `from row ${row}, column ${column}${may}: ${number(result.steps, 1)} steps on average; ` +
      `F_ω sums to ${number(total, 3)}, R_ω is ${number(result.reward, 3)}`;
    detail.textContent =
      (lasting > 1e-6 ? `Still running after ${LONGEST} steps: ${number(lasting, 3)}. ` : "") +
      "Blue with numbers: where it ends, per cent. Orange frames: β. Arrows: its moves.";
  });
}

export default { render };
