// Small grey pictures on a canvas, a pixel for each number.

import { html } from "./draw.js";

/** A canvas for so many pictures side by side; label: what they show. */
export function canvas(parent, side, count, label) {
  const size = { width: side * count, height: side };
  return html("canvas", { ...size, class: "pixels", role: "img", "aria-label": label }, parent);
}

/** Paint pictures, (side²,) each, 0 black and 1 white, one beside the other; the rest is left clear. */
export function paint(surface, pictures, side) {
  const context = surface.getContext("2d");
  context.clearRect(0, 0, surface.width, surface.height);
  pictures.forEach((picture, number) => {
    const image = context.createImageData(side, side);
    picture.forEach((value, i) => {
      const grey = 255 * Math.min(Math.max(value, 0), 1);
      image.data.set([grey, grey, grey, 255], 4 * i);
    });
    context.putImageData(image, side * number, 0);
  });
}
