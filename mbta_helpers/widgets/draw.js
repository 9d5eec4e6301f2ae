// Drawing: SVG elements, scales and controls that the live figures share.

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element with attributes, put at the end of its parent. Returns the element. */
export function svg(tag, attributes = {}, parent = null) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (parent) parent.append(element);
  return element;
}

/** An HTML element with attributes and a text, put at the end of its parent. Returns it. */
export function html(tag, attributes = {}, parent = null, text = "") {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

/** A straight map of [low, high] to [from, to], as a function; `.invert` goes back. */
export function scale(low, high, from, to) {
  const map = (x) => from + ((x - low) / (high - low)) * (to - from);
  map.invert = (y) => low + ((y - from) / (to - from)) * (high - low);
  return map;
}

/** The `d` of an SVG path through points [[x, y], …]. */
export function line(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`).join("");
}

/** Where a pointer is in the units of an SVG's viewBox: [x, y]. */
export function pointer(event, picture) {
  const point = new DOMPoint(event.clientX, event.clientY);
  const { x, y } = point.matrixTransform(picture.getScreenCTM().inverse());
  return [x, y];
}

/** A number as a person reads it: with a true minus, and as many decimals as asked for. */
export function number(value, decimals = 2) {
  const text = Math.abs(value).toFixed(decimals);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

/** Bottom axis with ticks and a label; x: a scale. */
export function axisBelow(picture, x, y, ticks, label) {
  const [left, right] = [x(ticks[0]), x(ticks[ticks.length - 1])];
  svg("path", { d: `M${left} ${y}H${right}`, class: "axis" }, picture);
  for (const tick of ticks) {
    svg("path", { d: `M${x(tick)} ${y}v4`, class: "axis" }, picture);
    const text = svg("text", { x: x(tick), y: y + 16, "text-anchor": "middle" }, picture);
    text.textContent = number(tick, 0);
  }
  const text = svg("text", { x: (left + right) / 2, y: y + 32, "text-anchor": "middle" }, picture);
  text.textContent = label;
}

/**
 * A slider with its label and its value, which follows a number of the model and sets it.
 *
 * options: label, min, max, step, decimals; entry: which one, where the number is in a list.
 * Returns the input element.
 */
export function slider(parent, model, name, options) {
  const { entry } = options;
  const now = () => (entry === undefined ? model.get(name) : model.get(name)[entry]);
  const row = html("label", { class: "slider" }, parent);
  html("span", {}, row, options.label);
  const { min, max, step } = options;
  const input = html("input", { type: "range", min, max, step, name: name + (entry ?? "") }, row);
  const output = html("output", {}, row);
  const show = () => {
    input.value = now();
    output.textContent = number(now(), options.decimals ?? 2);
  };
  input.addEventListener("input", () => {
    const value = Number(input.value);
    model.set(name, entry === undefined ? value : model.get(name).with(entry, value));
    model.save_changes();
  });
  model.on(`change:${name}`, show);
  show();
  return input;
}

/** Set numbers of the model by name, and tell the kernel, where there is one. */
export function put(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

/** Call `act` with the [right, down] of each arrow key that is pressed on an element. */
export function arrows(element, act) {
  const moves = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
  element.addEventListener("keydown", (event) => {
    if (!(event.key in moves)) return;
    event.preventDefault();
    act(moves[event.key]);
  });
}

/** A button that calls `act`. Returns it. */
export function button(parent, text, act) {
  const element = html("button", { type: "button" }, parent, text);
  element.addEventListener("click", act);
  return element;
}

/**
 * A row of buttons of which one is on; options: texts by name. Calls choose(name).
 *
 * Returns a function that shows one as on.
 */
export function choice(parent, label, options, choose) {
  const group = html("span", { class: "choice", role: "group", "aria-label": label }, parent);
  const buttons = Object.entries(options).map(([name, text]) => [
    name,
    button(group, text, () => choose(name)),
  ]);
  return (chosen) => {
    for (const [name, one] of buttons) one.setAttribute("aria-pressed", name === String(chosen));
  };
}

/** Say that the figure cannot go on: in itself, and to the page, which shows its picture again. */
export function fail(el, said, error) {
  said.textContent = `This figure cannot compute here: ${error.message}.`;
  el.dispatchEvent(new CustomEvent("mbta-failed", { bubbles: true, detail: error }));
}

/** Whether the reader asked the system for less motion. */
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A promise for the next frame, or for so many milliseconds later. */
export const pause = (ms = 0) =>
  new Promise((done) => (ms ? setTimeout(done, ms) : requestAnimationFrame(() => done())));

/** Call `redraw` now and whenever one of the model's numbers changes. */
export function follow(model, names, redraw) {
  for (const name of names) model.on(`change:${name}`, redraw);
  redraw();
}
