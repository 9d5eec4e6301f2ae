// Plan in the browser: a start, a goal, the shipped networks, CEM, and a walk with new plans.

import { button, calm, choice, fail, html, line, number, pause, pointer, slider, svg } from "./draw.js";
import { Arena, SkillModel } from "./networks.js";
import { planSteps } from "./planner.js";
import { cellAt, centreOf, isFree, shapeOf, stepPoint } from "./point.js";
import { normals } from "./random.js";
import { readWeights } from "./weights.js";

const CELL = 40; // of the picture's units
const SUCCESS = 0.45; // map units; the simulator's radius
const PUSH = 4; // map units a second
const CLEARANCE = 0.1; // of the ball's centre from a wall
const STEPS_A_FRAME = 2;
const TOOLS = { start: "Set start", goal: "Set goal", push: "Push" };

/** The SVG of a maze with what is drawn on it; returns functions that redraw its parts. */
function drawMap(parent) {
  const picture = svg("svg", { class: "map", tabindex: 0, role: "application" }, parent);
  picture.setAttribute(
    "aria-label",
    "The maze. The arrow keys move a cursor from cell to cell; Enter does there what a click does.",
  );
  const path = (name) => svg("path", { class: name }, picture);
  const parts = {};
  for (const name of ["walls", "candidates", "elites", "walked", "plan", "marks"]) {
    parts[name] = path(name);
  }
  parts.goal = svg("path", { class: "goal", d: star(0, 0, 13) }, picture);
  parts.ball = svg("circle", { class: "ball", r: 7 }, picture);
  parts.cursor = svg("rect", { class: "cursor", width: CELL - 6, height: CELL - 6 }, picture);
  let walls = [];
  const point = ([x, y]) => {
    const [rows, columns] = shapeOf(walls);
    return [CELL * (x + columns / 2), CELL * (rows / 2 - y)];
  };
  return {
    picture,
    /** The map point of an event. */
    place(event) {
      const [rows, columns] = shapeOf(walls);
      const [px, py] = pointer(event, picture);
      return [px / CELL - columns / 2, rows / 2 - py / CELL];
    },
    maze(of) {
      walls = of;
      const [rows, columns] = shapeOf(walls);
      picture.setAttribute("viewBox", `0 0 ${CELL * columns} ${CELL * rows}`);
      picture.style.maxWidth = `${52 * columns}px`;
      const cells = walls.flatMap((row, i) => row.map((wall, j) => (wall ? [i, j] : null)));
      const square = ([i, j]) => `M${CELL * j} ${CELL * i}h${CELL}v${CELL}h-${CELL}z`;
      parts.walls.setAttribute("d", cells.filter(Boolean).map(square).join(""));
    },
    /** Candidates and elites of one iteration up to their nearest point, and the best plan. */
    search(seen, elites) {
      const dims = seen.path[0].length / seen.costs.length;
      const lineOf = (k) => {
        const points = [];
        for (let l = 0; l <= seen.ends[k]; l++) {
          points.push(point([seen.path[l][k * dims], seen.path[l][k * dims + 1]]));
        }
        return line(points);
      };
      const lines = (numbers) => numbers.map(lineOf).join("");
      parts.candidates.setAttribute("d", lines(seen.order.slice(elites)));
      parts.elites.setAttribute("d", lines(seen.order.slice(1, elites)));
      const best = seen.plan.slice(0, seen.nearest + 1).map(point);
      parts.plan.setAttribute("d", line(best));
      parts.marks.setAttribute("d", best.slice(1).map(([x, y]) => `M${x} ${y}h0`).join(""));
    },
    walked: (points) => parts.walked.setAttribute("d", line(points.map(point))),
    ball(at) {
      const [x, y] = point(at);
      parts.ball.setAttribute("cx", x);
      parts.ball.setAttribute("cy", y);
    },
    goal: (at) => parts.goal.setAttribute("transform", `translate(${point(at).join(" ")})`),
    cursor([i, j]) {
      parts.cursor.setAttribute("x", CELL * j + 3);
      parts.cursor.setAttribute("y", CELL * i + 3);
    },
    clear() {
      for (const name of ["candidates", "elites", "walked", "plan", "marks"]) {
        parts[name].setAttribute("d", "");
      }
    },
  };
}

/** The `d` of a star with five points. */
function star(x, y, radius) {
  const points = [...Array(10).keys()].map((i) => {
    const r = i % 2 ? 0.45 * radius : radius;
    return [x + r * Math.sin((i * Math.PI) / 5), y - r * Math.cos((i * Math.PI) / 5)];
  });
  return `${line(points)}z`;
}

/**
 * What the figure does; model: the state that the page or the kernel gives.
 *
 * state: of the ball, [x, y, v_x, v_y]. walked: the points it passed. last: the last search. tool:
 * what a click does. A walk runs while `running` is the number that it began with.
 */
class PlanFigure {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.running = 0; // the number of the walk that runs; another number stops it
    this.networks = {}; // by maze
    el.classList.add("mbta-live");
    const top = html("div", { class: "controls" }, el);
    const mazes = Object.entries(model.get("mazes"));
    mazes.sort(([, one], [, other]) => one.walls[0].length - other.walls[0].length);
    const labels = Object.fromEntries(mazes.map(([name, maze]) => [name, maze.label]));
    this.showMaze = choice(top, "Maze", labels, (name) => {
      model.set("maze", name);
      model.save_changes();
    });
    this.showTool = choice(top, "A click on the maze", TOOLS, (name) => this.take(name));
    this.map = drawMap(html("div", { class: "panels" }, el));
    const below = html("div", { class: "controls" }, el);
    this.go = button(below, "Plan and walk", () => this.toggle());
    button(below, "Back to the start", () => this.reset());
    const slow = html("label", {}, below);
    this.slow = html("input", { type: "checkbox", name: "slow" }, slow);
    slow.append(" show each iteration for longer");
    const most = Math.max(...mazes.map(([, maze]) => maze.planner.cem.candidates));
    const range = { min: 20, max: most, step: 20, decimals: 0 };
    slider(below, model, "candidates", { label: "candidates", ...range });
    this.said = html("p", { class: "said", "aria-live": "polite" }, el);
    this.detail = html("p", { class: "said detail" }, el);
    this.map.picture.addEventListener("click", (event) => this.apply(this.map.place(event)));
    this.map.picture.addEventListener("keydown", (event) => this.key(event));
    model.on("change:maze", () => this.enter());
    this.enter();
  }

  /** Show the chosen maze with its start and goal. */
  enter() {
    const name = this.model.get("maze");
    this.maze = this.model.get("mazes")[name];
    this.walls = this.maze.walls;
    this.start = this.maze.start;
    this.goal = this.maze.goal;
    this.cursor = cellAt(this.walls, this.goal);
    this.showMaze(name);
    this.map.maze(this.walls);
    this.map.cursor(this.cursor);
    this.take("goal");
    this.reset();
  }

  /** Stop, and put the ball at the start. */
  reset() {
    this.stop();
    this.state = [...this.start, 0, 0];
    this.walked = [this.start];
    this.plans = 0;
    this.last = null;
    this.draws = normals(this.model.get("seed"));
    this.map.clear();
    this.map.ball(this.start);
    this.map.goal(this.goal);
    this.say("Choose a goal by a click, or press Plan and walk.");
    this.detail.textContent = "";
  }

  stop() {
    this.running += 1;
    this.walking = false;
    this.go.textContent = "Plan and walk";
  }

  say(text) {
    if (this.said.textContent !== text) this.said.textContent = text;
  }

  take(tool) {
    this.tool = tool;
    this.showTool(tool);
  }

  /** Do what the chosen tool does at a point of the map. */
  apply(place) {
    if (this.tool === "push") return this.push(place);
    const found = this.freePlace(place);
    if (!found) return this.say("There is a wall. Choose a place in a corridor.");
    this[this.tool] = found;
    const planned = this.tool === "goal";
    this.take(planned ? "push" : "goal");
    if (planned && this.walked.length > 1) {
      this.last = null; // another goal on the way: the old plan leads elsewhere
      this.map.goal(found);
      if (!this.walking) this.toggle();
      return undefined;
    }
    this.reset();
    return planned ? this.toggle() : this.say("Now choose a goal.");
  }

  /** The place, moved away from walls within its cell; null in a wall. */
  freePlace(place) {
    const cell = cellAt(this.walls, place);
    if (this.walls[cell[0]]?.[cell[1]] !== 0) return null;
    const centre = centreOf(this.walls, cell);
    const reach = 0.5 - CLEARANCE;
    const inside = place.map((x, i) => Math.min(Math.max(x, centre[i] - reach), centre[i] + reach));
    return isFree(this.walls, place, CLEARANCE) ? place : inside;
  }

  /** Kick the ball towards a point; the next step begins with a new plan. */
  push(place) {
    const way = place.map((x, i) => x - this.state[i]);
    const length = Math.hypot(...way) || 1;
    this.state = [...this.state.slice(0, 2), ...way.map((x, i) => this.state[2 + i] + (PUSH * x) / length)];
    this.pushed = true;
    this.say("Pushed: a new plan from where the ball is now.");
    if (!this.walking) this.toggle();
  }

  key(event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === "Enter" || event.key === " ") {
      this.apply(centreOf(this.walls, this.cursor));
    } else if (event.key in moves) {
      const next = this.cursor.map((x, i) => x + moves[event.key][i]);
      if (this.walls[next[0]]?.[next[1]] === undefined) return;
      this.cursor = next;
      this.map.cursor(next);
      const wall = this.walls[next[0]][next[1]] ? ", a wall" : "";
      this.say(`row ${next[0]}, column ${next[1]}${wall}`);
    } else {
      return;
    }
    event.preventDefault();
  }

  /** The networks of the maze, loaded at the first plan. */
  async load() {
    const { model, maze } = this;
    const name = model.get("maze");
    if (!this.networks[name]) {
      this.say("The networks are loading.");
      const tensors = readWeights(await model.get("weights")[name]);
      this.arena ??= new Arena();
      const capacity = maze.planner.cem.candidates;
      this.networks[name] = new SkillModel(tensors, maze.networks, capacity, this.arena);
    }
    return this.networks[name];
  }

  toggle() {
    if (this.walking) {
      this.stop();
      return this.say("Stopped.");
    }
    if (this.reached() || this.walked.length > this.maze.max_steps) this.reset();
    this.walking = true;
    this.go.textContent = "Stop";
    this.running += 1;
    return this.walk(this.running).catch((error) => {
      this.stop();
      fail(this.el, this.said, error);
    });
  }

  reached() {
    return Math.hypot(this.state[0] - this.goal[0], this.state[1] - this.goal[1]) <= SUCCESS;
  }

  /** Plan, carry out H steps, and so on, until the goal; ends when another walk has begun. */
  async walk(mine) {
    const networks = await this.load();
    const limit = this.maze.max_steps;
    while (this.running === mine) {
      const skill = await this.decide(networks, mine);
      if (!skill || !(await this.carryOut(networks, skill, mine))) return;
      const steps = this.walked.length - 1;
      if (this.reached() || steps >= limit) {
        this.stop();
        const end = this.reached() ? "Reached" : "Given up";
        return this.say(`${end} after ${steps} steps and ${this.plans} plans.`);
      }
    }
  }

  /** The maze's planner with as many candidates as the slider says, a tenth of them elites. */
  planner() {
    const candidates = this.model.get("candidates");
    const { planner } = this.maze;
    const cem = { ...planner.cem, candidates, elites: Math.max(2, Math.floor(candidates / 10)) };
    return { ...planner, cem };
  }

  /** One search, drawn as it goes; returns the first skill of its plan, null if stopped. */
  async decide(networks, mine) {
    const planner = this.planner();
    let spent = 0;
    let search = null;
    const from = Float32Array.from(this.state);
    const steps = planSteps(networks, planner, from, this.goal, this.draws, this.last);
    this.pushed = false;
    for (;;) {
      const before = performance.now();
      const { value, done } = steps.next();
      spent += performance.now() - before;
      if (done) break;
      search = value;
      if (!calm() || search.iteration === planner.cem.iterations) {
        this.map.search(search, planner.cem.elites);
      }
      await pause(this.slow.checked ? 700 : 0);
      if (this.running !== mine) return null;
    }
    this.last = search;
    this.plans += 1;
    if (this.plans === 1) {
      this.el.dataset.planSeconds = (spent / 1000).toFixed(3);
      this.say(`Planned in ${number(spent / 1000)} s.`);
    }
    this.detail.textContent =
      `plan ${this.plans}: ${search.nearest} skills, cost ${number(search.cost)}, ` +
      `made in ${number(spent / 1000)} s`;
    return search.skill;
  }

  /** H steps of a skill, fewer where the ball arrives or is pushed; false if stopped. */
  async carryOut(networks, skill, mine) {
    for (let step = 0; step < this.maze.planner.replan_every && !this.pushed; step++) {
      const action = networks.act(Float32Array.from(this.state), skill, 1);
      this.state = stepPoint(this.walls, this.state, action);
      this.walked.push(this.state.slice(0, 2));
      if (this.reached()) break;
      if (!calm() && step % STEPS_A_FRAME === 0) {
        this.draw();
        await pause();
      }
      if (this.running !== mine) return false;
    }
    this.draw();
    await pause();
    return this.running === mine;
  }

  draw() {
    this.map.ball(this.state);
    this.map.walked(this.walked);
    this.el.dataset.steps = this.walked.length - 1;
  }
}

function render({ model, el }) {
  const figure = new PlanFigure(model, el);
  return () => figure.stop();
}

export default { render };
