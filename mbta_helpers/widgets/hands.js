// Hands: handles to drag, a list to choose from, and the outlines of arrows and walls.

import { arrows, follow, html, line, number, pointer, put, svg } from "./draw.js";

/** Call `act` with a pointer's place in a picture's units while it drags an element. */
export function drag(element, picture, act) {
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  element.addEventListener("pointermove", (event) => {
    if (element.hasPointerCapture(event.pointerId)) act(pointer(event, picture));
  });
}

/**
 * A round handle for a number, which is dragged, or moved by the arrow keys.
 *
 * options: label, min, max, step; kind: its class; now(): the number; set(number); place(number):
 * where the handle is, [x, y]; read([x, y]): the number there. Returns a function that puts it
 * where it belongs.
 */
export function knob(picture, { label, min, max, step, kind = "", now, set, place, read }) {
  const names = { "aria-label": label, "aria-valuemin": min, "aria-valuemax": max };
  const shape = { class: `knob ${kind}`, role: "slider", tabindex: 0, ...names };
  const handle = svg("g", shape, picture);
  svg("circle", { r: 15, class: "grip" }, handle); // for fingers
  svg("circle", { r: 8, class: "handle" }, handle);
  const within = (value) => Math.min(Math.max(value, min), max);
  drag(handle, picture, (point) => set(within(read(point))));
  arrows(handle, ([right, down]) => set(within(now() + step * (right - down))));
  return () => {
    handle.setAttribute("transform", `translate(${place(now()).join(" ")})`);
    handle.setAttribute("aria-valuenow", now());
    handle.setAttribute("aria-valuetext", number(now()));
  };
}

/** A list to choose from; the model's number `name` is the place in it. */
export function menu(parent, model, name, label, texts) {
  const row = html("label", {}, parent, `${label} `);
  const list = html("select", { name }, row);
  texts.forEach((text, i) => html("option", { value: i }, list, text));
  list.addEventListener("change", () => put(model, { [name]: Number(list.value) }));
  follow(model, [name], () => (list.value = model.get(name)));
}

/** The `d` of a path of squares where a map has walls; walls: rows of 0 and 1. */
export const wallPath = (walls, unit) =>
  walls
    .flatMap((row, i) => row.map((wall, j) => [wall, `M${unit * j} ${unit * i}`]))
    .filter(([wall]) => wall)
    .map(([, corner]) => `${corner}h${unit}v${unit}h${-unit}z`)
    .join("");

/** An arrow's outline for the `d` of a path: its middle, the way it points, its length. */
export function arrow([x, y], [right, down], length) {
  const size = Math.hypot(right, down);
  if (size < 1e-3) return "";
  const [dx, dy] = [(right * length) / 2, (down * length) / 2];
  const [bx, by] = [(0.3 * length * right) / size, (0.3 * length * down) / size];
  const tip = [x + dx, y + dy];
  const back = (side) => [tip[0] - bx + side * by, tip[1] - by - side * bx];
  return line([[x - dx, y - dy], tip]) + line([back(0.7), tip, back(-0.7)]);
}
