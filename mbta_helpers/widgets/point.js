// The point mass of gymnasium-robotics' PointMaze: MuJoCo's step for a sphere between boxes.
//
// The constants are those of the environment's model; a test holds the steps against MuJoCo.

const STEP = 0.01; // seconds
const FORCE = 100; // of an action of 1 (the motors' gear)
const FASTEST = 5; // each component of the velocity is clipped to this before a step
const DAMPING = 1;
const RADIUS = 0.1;
const MASS = 1000 * ((4 / 3) * Math.PI * RADIUS ** 3);
const MARGIN = 0.004; // of the sphere and a wall together: contacts act from this distance on
const [TIME, SOFTEST, STIFFEST, WIDTH] = [0.02, 0.9, 0.95, 0.001]; // solref and solimp
const STIFFNESS = 1 / (STIFFEST * TIME) ** 2;
const RESISTANCE = 2 / (STIFFEST * TIME);
const SWEEPS = 50; // over the contacts, which disturb each other at corners and seams only

const clip = (x, limit) => Math.min(Math.max(x, -limit), limit);

/** Rows and columns of a maze; walls: rows of 0 (free) and 1. */
export const shapeOf = (walls) => [walls.length, walls[0].length];

/** The middle [x, y] of a cell [row, column]. */
export function centreOf(walls, [row, column]) {
  const [rows, columns] = shapeOf(walls);
  return [column + 0.5 - columns / 2, rows / 2 - row - 0.5];
}

/** The cell [row, column] that holds a point; it may be a wall or lie outside. */
export function cellAt(walls, [x, y]) {
  const [rows, columns] = shapeOf(walls);
  return [Math.floor(rows / 2 - y), Math.floor(x + columns / 2)];
}

/** Whether a point [x, y] keeps a distance (per axis) from every wall. */
export function isFree(walls, [x, y], clearance = 0) {
  return [-clearance, clearance].every((dx) =>
    [-clearance, clearance].every((dy) => {
      const [row, column] = cellAt(walls, [x + dx, y + dy]);
      return walls[row]?.[column] === 0;
    }),
  );
}

/** Walls in reach of the sphere at [x, y]: direction away from each, and the distance to it. */
function contacts(walls, [x, y]) {
  const [row, column] = cellAt(walls, [x, y]);
  const found = [];
  for (let i = row - 1; i <= row + 1; i++) {
    for (let j = column - 1; j <= column + 1; j++) {
      if (walls[i]?.[j] !== 1) continue;
      const [cx, cy] = centreOf(walls, [i, j]);
      const [dx, dy] = [x - cx - clip(x - cx, 0.5), y - cy - clip(y - cy, 0.5)];
      const away = Math.hypot(dx, dy);
      const distance = away - RADIUS;
      if (away > 0 && distance < MARGIN) found.push({ normal: [dx / away, dy / away], distance });
    }
  }
  return found;
}

/** How hard a contact is at a distance (MuJoCo's impedance). */
function impedance(distance) {
  const x = Math.min(Math.abs(distance - MARGIN) / WIDTH, 1);
  const y = x <= 0.5 ? 2 * x * x : 1 - 2 * (1 - x) ** 2;
  return SOFTEST + y * (STIFFEST - SOFTEST);
}

/** One step of a state [x, y, v_x, v_y] under an action in [−1, 1]²; returns the next state. */
export function stepPoint(walls, state, action) {
  const position = [state[0], state[1]];
  const velocity = [clip(state[2], FASTEST), clip(state[3], FASTEST)];
  const force = [0, 1].map((i) => FORCE * clip(action[i], 1) - DAMPING * velocity[i]);
  const along = (vector, normal) => vector[0] * normal[0] + vector[1] * normal[1];
  const rows = contacts(walls, position).map(({ normal, distance }) => {
    const hard = impedance(distance);
    const wanted =
      -RESISTANCE * along(velocity, normal) - STIFFNESS * hard * (distance - MARGIN);
    return { normal, wanted, soft: (1 - hard) / hard / MASS, push: 0 };
  });
  for (let sweep = 0; rows.length && sweep < SWEEPS; sweep++) {
    for (const row of rows) {
      const missing = row.wanted - along(force, row.normal) / MASS - row.soft * row.push;
      const push = Math.max(row.push + missing / (1 / MASS + row.soft), 0);
      for (const i of [0, 1]) force[i] += (push - row.push) * row.normal[i];
      row.push = push;
    }
  }
  const next = velocity.map((v, i) => v + (STEP * force[i]) / (MASS + STEP * DAMPING));
  return [...position.map((x, i) => x + STEP * next[i]), ...next];
}
