// Commands in the feudal maze: what each level orders in a cell, and where the moves lead.

import { arrows, choice, follow, html, line, pointer, put, svg } from "./draw.js";
import { arrow, wallPath } from "./hands.js";

const SIZE = 384; // of the picture's units along a side
const MOVES = [[-1, 0], [1, 0], [0, -1], [0, 1]]; // prettier-ignore
const NAMES = ["north", "south", "west", "east", "search"];
const SEARCH = 4;

/** The area of a level in which a cell [row, column] lies; depth: the level of the cells. */
export const areaOf = ([row, column], level, depth) =>
  (row >> (depth - level)) * 2 ** level + (column >> (depth - level));

/**
 * The commands from a level downwards in a cell, by the learnt tables; the last one is the move.
 *
 * tables: for each level from 1 on, a text with the best choice for each area and command above.
 * level: whose area is under `order`.
 */
export function commandsAt(tables, cell, level, order) {
  const chain = [order];
  for (let l = level + 1; l <= tables.length; l++) {
    const area = areaOf(cell, l, tables.length);
    chain.push(Number(tables[l - 1][5 * area + chain[chain.length - 1]]));
  }
  return chain;
}

/** Where a move leads; into a wall or over the edge it leads nowhere. */
export function stepMaze(walls, [row, column], move) {
  const to = [row + MOVES[move][0], column + MOVES[move][1]];
  return walls[to[0]]?.[to[1]] === 0 ? to : [row, column];
}

/**
 * Follow an order until the agent has left the area, found the goal, or goes round in circles.
 *
 * Returns path, the cells passed, and end: "goal", "left" or "circles"; left: by which move the
 * area was left, null if it was not.
 */
export function carryOut(tables, walls, goal, start, level, order) {
  const [path, seen] = [[start], new Set()];
  for (;;) {
    const cell = path[path.length - 1];
    if (seen.has(`${cell}`)) return { path, end: "circles", left: null };
    seen.add(`${cell}`);
    const move = commandsAt(tables, cell, level, order).at(-1);
    const after = stepMaze(walls, cell, move);
    path.push(after);
    const area = (place) => areaOf(place, level, tables.length);
    const left = area(after) === area(cell) ? null : move;
    if (`${after}` === `${goal}`) return { path, end: "goal", left };
    if (left !== null) return { path, end: "left", left };
  }
}

/** Whether a command was carried out (12.1): the area left as told, or the goal found in a search. */
export const obeyed = ({ end, left }, order) =>
  left === null ? end === "goal" && order === SEARCH : left === order;

function render({ model, el }) {
  el.classList.add("mbta-live");
  const [walls, tables, goal] = ["walls", "tables", "goal"].map((name) => model.get(name));
  const depth = tables.length;
  const unit = SIZE / walls.length;
  const top = html("div", { class: "controls" }, el);
  const size = (l) => walls.length >> l; // cells along a side of an area
  const levels = Array.from({ length: depth - 1 }, (_, l) => [l, `${size(l)} × ${size(l)}`]);
  html("span", {}, top, "area");
  const showLevel = choice(top, "Area that gets the command", Object.fromEntries(levels), (l) =>
    put(model, { level: Number(l) }),
  );
  const second = html("div", { class: "controls" }, el);
  html("span", {}, second, "command");
  const orders = Object.fromEntries(NAMES.map((name, i) => [i, name]));
  const showOrder = choice(second, "Command", orders, (i) => put(model, { order: Number(i) }));
  const panels = html("div", { class: "panels" }, el);
  const picture = svg("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "application" }, panels);
  picture.setAttribute("class", "map ground");
  picture.setAttribute("tabindex", 0);
  picture.setAttribute(
    "aria-label",
    "The maze with the moves that follow from the command, and the way from the chosen cell. A " +
      "click or the arrow keys choose the cell.",
  );
  svg("path", { class: "walls", d: wallPath(walls, unit) }, picture);
  const middle = ([i, j]) => [unit * (j + 0.5), unit * (i + 0.5)];
  const ways = svg("path", { class: "ways" }, picture);
  const frames = Array.from({ length: depth }, (_, l) =>
    svg("rect", { class: "area", "stroke-width": 4 - (3 * l) / depth }, picture),
  );
  const way = svg("path", { class: "walked" }, picture);
  const [gx, gy] = middle(goal);
  svg("circle", { class: "goal", cx: gx, cy: gy, r: 7 }, picture);
  const begin = svg("circle", { class: "ball", r: 5 }, picture);
  svg("rect", { class: "cursor", width: SIZE, height: SIZE }, picture);
  const said = html("p", { class: "said", "aria-live": "polite" }, el);
  const detail = html("p", { class: "said detail" }, el);

  const choose = (cell) => {
    if (walls[cell[0]]?.[cell[1]] === 0) put(model, { cell });
  };
  picture.addEventListener("click", (event) => {
    const [x, y] = pointer(event, picture);
    choose([Math.floor(y / unit), Math.floor(x / unit)]);
  });
  arrows(picture, ([right, down]) => {
    const [row, column] = model.get("cell");
    choose([row + down, column + right]);
  });
  follow(model, ["cell", "level", "order"], () => {
    const [cell, level] = [model.get("cell"), model.get("level")];
    const order = level === 0 ? SEARCH : model.get("order"); // the whole maze is always searched
    showLevel(level);
    showOrder(order);
    let moves = "";
    walls.forEach((row, i) =>
      row.forEach((wall, j) => {
        const move = wall ? 0 : commandsAt(tables, [i, j], level, order).at(-1);
        const [down, right] = MOVES[move];
        if (!wall) moves += arrow(middle([i, j]), [right, down], 0.62 * unit);
      }),
    );
    ways.setAttribute("d", moves);
    frames.forEach((frame, l) => {
      const side = SIZE / 2 ** l;
      const [top, left] = cell.map((place) => side * Math.floor(place / size(l)));
      const visibility = l < level ? "hidden" : "visible";
      const values = { x: left, y: top, width: side, height: side, visibility };
      for (const [name, value] of Object.entries(values)) frame.setAttribute(name, value);
    });
    const result = carryOut(tables, walls, goal, cell, level, order);
    const { path, end, left } = result;
    way.setAttribute("d", line(path.map(middle)));
    const [cx, cy] = middle(cell);
    begin.setAttribute("cx", cx);
    begin.setAttribute("cy", cy);
    const told = commandsAt(tables, cell, level, order);
    const outcome = {
      goal: "the goal is found",
      left: `the area is left to the ${NAMES[left]}`,
      circles: "no way out: it stands, or goes round in circles",
    }[end];
    said.textContent =
      `row ${cell[0]}, column ${cell[1]}: ${path.length - 1} moves, ${outcome}; the command is ` +
      (obeyed(result, order) ? "carried out" : "not carried out");
    const chain = told.map((command, i) => {
      const l = level + i;
      return l === depth ? `move ${NAMES[command]}` : `${size(l)} × ${size(l)}: ${NAMES[command]}`;
    });
    detail.textContent = `${chain.join(" → ")}. Red frames: these areas.`;
  });
}

export default { render };
