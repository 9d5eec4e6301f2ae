// The skill explorer: from any state, where skills of the prior lead, and one skill carried out.

import { arrows, fail, follow, html, line, number, pointer, put, slider, svg } from "./draw.js";
import { Arena, SkillModel } from "./networks.js";
import { cellAt, centreOf, isFree, stepPoint } from "./point.js";
import { normals } from "./random.js";
import { readWeights } from "./weights.js";

const UNIT = 110; // of the picture's units in one of the map's
const HALF = 1.6; // map units to each side of the state
const SIDE = 2 * HALF * UNIT;
const SAMPLES = 60;
const CLEARANCE = 0.1;
const RADII = [Math.sqrt(-2 * Math.log(0.5)), Math.sqrt(-2 * Math.log(0.05))]; // 50 % and 95 %

/**
 * Where skills lead from a state (S,): z = μ_ω(s) + σ_ω(s) ε (6.3), for epsilon (rows, Z).
 *
 * Returns skills (rows, Z), and loc and scale of p_ψ(s_T|s, z), (rows, S) each.
 */
export function outcomes(networks, state, epsilon) {
  const size = networks.skillDim;
  const rows = epsilon.length / size;
  const { loc, scale } = networks.prior(Float32Array.from(state), 1);
  const skills = Float32Array.from(epsilon, (e, i) => loc[i % size] + scale[i % size] * e);
  const states = new Float32Array(rows * state.length);
  for (let r = 0; r < rows; r++) states.set(state, r * state.length);
  return { skills, ...networks.outcome(states, skills, rows, true) };
}

/** The states passed in so many steps of one skill with mean actions, the first included. */
export function carryOut(networks, walls, state, skill, steps) {
  const passed = [state];
  for (let t = 0; t < steps; t++) {
    const action = networks.act(Float32Array.from(passed[t]), skill, 1);
    passed.push(stepPoint(walls, passed[t], action));
  }
  return passed;
}

/** What is drawn, and functions to redraw it; all of it in map units about a state. */
function drawView(parent, walls) {
  const picture = svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, class: "map" }, parent);
  picture.setAttribute("role", "application");
  picture.setAttribute("tabindex", 0);
  picture.setAttribute(
    "aria-label",
    "The maze around the ball: end points of sampled skills and their ellipses, and one skill " +
      "carried out. A click moves the ball there; the arrow keys move it to the next cell.",
  );
  const parts = {};
  for (const name of ["walls", "clouds", "ends", "walked"]) {
    parts[name] = svg("path", { class: name }, picture);
  }
  parts.ellipses = RADII.map(() => svg("ellipse", { class: "outcome" }, picture));
  parts.end = svg("circle", { class: "end", r: 4 }, picture);
  svg("circle", { class: "ball", r: 7, cx: SIDE / 2, cy: SIDE / 2 }, picture);
  let centre = [0, 0];
  const point = ([x, y]) => [SIDE / 2 + UNIT * (x - centre[0]), SIDE / 2 - UNIT * (y - centre[1])];
  const ellipse = ([x, y], [sx, sy], radius) => {
    const [px, py] = point([x, y]);
    const [rx, ry] = [UNIT * radius * sx, UNIT * radius * sy];
    return `M${px - rx} ${py}a${rx} ${ry} 0 1 0 ${2 * rx} 0a${rx} ${ry} 0 1 0 ${-2 * rx} 0`;
  };
  return {
    picture,
    /** The map point of an event. */
    place(event) {
      const [px, py] = pointer(event, picture);
      return [centre[0] + (px - SIDE / 2) / UNIT, centre[1] - (py - SIDE / 2) / UNIT];
    },
    at(state) {
      centre = state.slice(0, 2);
      let d = "";
      walls.forEach((row, i) =>
        row.forEach((wall, j) => {
          const [x, y] = centreOf(walls, [i, j]);
          const [left, top] = point([x - 0.5, y + 0.5]);
          if (wall) d += `M${left} ${top}h${UNIT}v${UNIT}h${-UNIT}z`;
        }),
      );
      parts.walls.setAttribute("d", d);
    },
    /** Sampled end points with ellipses that hold half; loc, scale: (rows, S). */
    samples({ loc, scale }, dims) {
      let [clouds, ends] = ["", ""];
      for (let i = 0; i < loc.length; i += dims) {
        const [x, y] = point([loc[i], loc[i + 1]]);
        ends += `M${x} ${y}h0`;
        clouds += ellipse([loc[i], loc[i + 1]], [scale[i], scale[i + 1]], RADII[0]);
      }
      parts.ends.setAttribute("d", ends);
      parts.clouds.setAttribute("d", clouds);
    },
    /** The one skill: its outcome's ellipses and the states passed. */
    skill({ loc, scale }, passed) {
      parts.ellipses.forEach((shape, i) => {
        const [cx, cy] = point(loc);
        const values = { cx, cy, rx: UNIT * RADII[i] * scale[0], ry: UNIT * RADII[i] * scale[1] };
        for (const [name, value] of Object.entries(values)) shape.setAttribute(name, value);
      });
      parts.walked.setAttribute("d", line(passed.map(point)));
      const [x, y] = point(passed[passed.length - 1]);
      parts.end.setAttribute("cx", x);
      parts.end.setAttribute("cy", y);
    },
  };
}

async function render({ model, el }) {
  el.classList.add("mbta-live");
  const maze = model.get("maze");
  const view = drawView(html("div", { class: "panels" }, el), maze.walls);
  const controls = html("div", { class: "controls" }, el);
  model.get("dims").forEach((dim) => {
    const label = `ε, dimension ${dim}`;
    slider(controls, model, "epsilon", { label, entry: dim, min: -3, max: 3, step: 0.1, decimals: 1 });
  });
  ["v_x", "v_y"].forEach((label, i) => {
    slider(controls, model, "state", { label, entry: 2 + i, min: -3, max: 3, step: 0.5, decimals: 1 });
  });
  const said = html("p", { class: "said", "aria-live": "polite" }, el);

  const move = (place) => {
    if (!isFree(maze.walls, place, CLEARANCE)) return;
    put(model, { state: [...place, ...model.get("state").slice(2)] });
  };
  view.picture.addEventListener("click", (event) => move(view.place(event)));
  arrows(view.picture, ([right, down]) => {
    const [row, column] = cellAt(maze.walls, model.get("state"));
    move(centreOf(maze.walls, [row + down, column + right]));
  });

  let networks;
  try {
    const tensors = readWeights(await model.get("weights")[maze.name]);
    networks = new SkillModel(tensors, maze.networks, SAMPLES, new Arena());
  } catch (error) {
    return fail(el, said, error);
  }
  const draw = normals(model.get("seed"));
  const noise = Float32Array.from({ length: SAMPLES * networks.skillDim }, draw);
  follow(model, ["state", "epsilon"], () => {
    const state = model.get("state");
    view.at(state);
    view.samples(outcomes(networks, state, noise), networks.stateDim);
    const one = outcomes(networks, state, Float32Array.from(model.get("epsilon")));
    const steps = maze.planner.window_length;
    const passed = carryOut(networks, maze.walls, [...state], one.skills, steps);
    view.skill(one, passed);
    const end = passed[steps];
    const off = Math.hypot(...[0, 1].map((i) => (end[i] - one.loc[i]) / one.scale[i]));
    said.textContent =
      `expected end (${number(one.loc[0])}, ${number(one.loc[1])}), ` +
      `carried out (${number(end[0])}, ${number(end[1])}): ${number(off, 1)} standard deviations off`;
  });
  return undefined;
}

export default { render };
