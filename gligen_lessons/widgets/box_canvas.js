// Boxes over a picture. Drag one, or a corner of the chosen one; or choose with Tab and press the
// arrow keys. Nothing is fetched, no library is needed. A box is [x0, y0, x1, y1], parts of the
// picture. Traits: picture, boxes, names, colours, fixed, links, step, label (see box_canvas.py).
// Python adds the last line, which says what view to show: grounding_canvas.js shares all this.

const PAUSE = 50;                                     // ms at least between two messages
const CORNERS = { nw: [0, 1], ne: [2, 1], sw: [0, 3], se: [2, 3] };   // the coordinates it holds
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const NEARBY = [0, 1, -1, 2, -2, 3, -3];              // where a name may stand, in its heights

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const percent = (part) => `${100 * part}%`;
const size = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);

/** The box shifted by (dx, dy), as far as the picture reaches. */
function moved([x0, y0, x1, y1], dx, dy) {
  const right = clamp(dx, -x0, 1 - x1), down = clamp(dy, -y0, 1 - y1);
  return [x0 + right, y0 + down, x1 + right, y1 + down].map((part) => clamp(part, 0, 1));
}

/** The box with two of its coordinates moved; neither side becomes shorter than `least`. */
function stretched(box, [i, j], dx, dy, least) {
  const bent = [...box];
  for (const [k, d] of [[i, dx], [j, dy]]) {
    const [low, high] = k < 2 ? [0, box[k + 2] - least] : [box[k - 2] + least, 1];
    bent[k] = clamp(box[k] + d, low, high);
  }
  return bent;
}

/** Lay an element over a box of the picture. */
function lay(element, [x0, y0, x1, y1]) {
  Object.assign(element.style, { left: percent(x0), top: percent(y0),
    width: percent(x1 - x0), height: percent(y1 - y0) });
}

/** A new element with a class, put at the end of its parent. */
function add(parent, tag, name, text = "") {
  const element = parent.appendChild(document.createElement(tag));
  element.className = name;
  element.textContent = text;
  return element;
}

class BoxView {
  constructor(model, el) {
    this.model = model;
    this.chosen = this.timer = null;
    this.held = false;                                // by a pointer, just now
    this.sent = 0;
    this.make(el);
    model.on("change:picture", () => this.paint());
    model.on("change:boxes", () => this.follow());
    model.on("change:links", () => this.link());
    for (const trait of ["names", "colours", "fixed", "label"]) {
      model.on(`change:${trait}`, () => this.build());
    }
    this.paint();
    this.build();
    this.watch = new ResizeObserver(() => this.name());
    this.watch.observe(this.stage);
  }

  /** Make what stays whatever the boxes are: picture, layers, corners, words. */
  make(el) {
    this.stage = add(el, "div", "box-stage");
    this.stage.setAttribute("role", "group");
    this.image = add(this.stage, "img", "box-picture");
    this.image.alt = "";
    this.image.draggable = false;
    this.stage.insertAdjacentHTML("beforeend", `<svg class="box-links" viewBox="0 0 100 100"
      preserveAspectRatio="none" aria-hidden="true"></svg>`);
    this.lines = this.stage.lastElementChild;
    this.layer = add(this.stage, "div", "box-layer");
    this.tags = add(this.stage, "div", "box-tags");
    this.tags.setAttribute("aria-hidden", "true");
    this.handles = Object.entries(CORNERS).map(([corner, held]) => this.handle(corner, held));
    add(el, "div", "box-hint", this.hint());
    this.status = add(el, "div", "box-status");
    this.status.setAttribute("role", "status");
  }

  hint() {
    return "Drag a box, or a corner of the chosen one. Keys: Tab chooses, arrows move, "
      + "Shift + arrows resize.";
  }

  paint() {
    URL.revokeObjectURL(this.image.src);
    this.image.src = URL.createObjectURL(new Blob([this.model.get("picture")],
      { type: "image/png" }));
  }

  /** Make one element for each box. */
  build() {
    this.boxes = this.model.get("boxes").map((box) => [...box]);
    this.stage.setAttribute("aria-label", this.model.get("label"));
    this.layer.replaceChildren();
    this.tags.replaceChildren();
    this.elements = this.boxes.map((_, i) => this.element(i));
    this.chosen = this.movable(this.chosen) ? this.chosen : null;
    this.place();
    this.link();
  }

  movable(i) {
    return i !== null && i < this.boxes.length && !this.model.get("fixed").includes(i);
  }

  nameOf(i) {
    return this.model.get("names")[i] || `box ${i}`;
  }

  colour(i) {
    const colours = this.model.get("colours");
    return colours[i % colours.length];
  }

  element(i) {
    const box = add(this.layer, "div", this.movable(i) ? "box-one" : "box-one box-fixed");
    for (const coloured of [box, add(this.tags, "span", "box-name", this.nameOf(i))]) {
      coloured.style.setProperty("--colour", this.colour(i));
    }
    box.setAttribute("role", this.movable(i) ? "button" : "img");
    if (this.movable(i)) {
      box.tabIndex = 0;
      box.setAttribute("aria-roledescription", "movable box");
      box.setAttribute("data-lm-suppress-shortcuts", "true");      // keys are ours, not Lab's
      box.addEventListener("focus", () => this.choose(i));
      box.addEventListener("keydown", (event) => this.key(event, i));
      this.draggable(box, () => i, moved);
    }
    return box;
  }

  handle(corner, held) {
    const handle = add(this.stage, "div", `box-handle box-${corner}`);
    this.draggable(handle, () => this.chosen, (box, dx, dy) =>
      stretched(box, held, dx, dy, this.model.get("step")));
    return handle;
  }

  /** While the pointer drags the element, box which() becomes change(box at first, dx, dy). */
  draggable(element, which, change) {
    this.pull(element, () => {
      this.elements[which()].focus({ preventScroll: true });
      return this.boxes[which()];
    }, (box, dx, dy) => this.put(which(), change(box, dx, dy)), () => this.told(which()));
  }

  /** While the pointer drags the element, move(what begin() gave, dx, dy); then say told(). */
  pull(element, begin, move, told) {
    let start = null;
    element.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault();
      element.setPointerCapture(event.pointerId);
      start = { x: event.clientX, y: event.clientY, what: begin() };
      this.held = true;
    });
    element.addEventListener("pointermove", (event) => {
      if (!start) return;
      const { width, height } = this.layer.getBoundingClientRect();
      move(start.what, (event.clientX - start.x) / width, (event.clientY - start.y) / height);
    });
    element.addEventListener("lostpointercapture", () => {
      start = null;
      this.held = false;
      this.status.textContent = told();
    });
  }

  key(event, i) {
    if (!(event.key in ARROWS) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const step = this.model.get("step"), [dx, dy] = ARROWS[event.key].map((d) => d * step);
    const box = this.boxes[i];
    this.put(i, event.shiftKey ? stretched(box, CORNERS.se, dx, dy, step) : moved(box, dx, dy));
    this.status.textContent = this.told(i);
  }

  choose(i) {
    this.chosen = i;
    this.place();
  }

  /** Box i is here now: show it at once, tell Python soon. */
  put(i, box) {
    this.boxes[i] = box;
    this.place();
    this.later();
  }

  later() {
    this.timer ??= setTimeout(() => this.send(), Math.max(0, this.sent + PAUSE - Date.now()));
  }

  send() {
    this.timer = null;
    this.sent = Date.now();
    this.model.set("boxes", this.boxes.map((box) => [...box]));
    this.model.save_changes();
  }

  /** Python, or another view, has moved boxes; what waits to be sent from here is newer. */
  follow() {
    if (this.timer !== null) return;
    if (this.model.get("boxes").length !== this.boxes.length) return this.build();
    this.boxes = this.model.get("boxes").map((box) => [...box]);
    this.place();
    this.link();
  }

  /** Put every element where its box is, small ones over large ones, handles over all. */
  place() {
    const order = this.boxes.map((_, i) => i)
      .sort((i, j) => this.movable(i) - this.movable(j) || size(this.boxes[j]) - size(this.boxes[i]));
    this.elements.forEach((element, i) => {
      lay(element, this.boxes[i]);
      element.style.zIndex = order.indexOf(i);
      element.classList.toggle("box-chosen", i === this.chosen);
      element.setAttribute("aria-label", this.told(i));
    });
    Object.values(CORNERS).forEach(([x, y], k) => {
      this.handles[k].hidden = this.chosen === null;
      if (this.chosen !== null) {
        Object.assign(this.handles[k].style, { left: percent(this.boxes[this.chosen][x]),
          top: percent(this.boxes[this.chosen][y]) });
      }
    });
    this.name();
  }

  /** Put names above boxes that stay and under those that move, at the next free place. */
  name() {
    const { clientWidth: wide, clientHeight: high } = this.layer, taken = [];
    [...this.tags.children].forEach((tag, i) => {
      const [x0, y0, , y1] = this.boxes[i], w = tag.offsetWidth, h = tag.offsetHeight;
      const x = clamp(x0 * wide, 0, wide - w), away = this.movable(i) ? h + 1 : -h - 1;
      const near = this.movable(i) ? y1 * high + 3 : y0 * high - h - 3;
      const free = (y) => y >= 0 && y + h <= high
        && !taken.some(([a, b, c, d]) => x < a + c && a < x + w && y < b + d && b < y + h);
      const y = NEARBY.map((k) => near + k * away).find(free) ?? clamp(near, 0, high - h);
      taken.push([x, y, w, h]);
      Object.assign(tag.style, { left: percent(x / wide), top: percent(y / high) });
    });
  }

  /** Lines between the centres of boxes that belong together, in the colour of the second. */
  link() {
    this.lines.innerHTML = this.model.get("links").map(([i, j]) => {
      const [a, b, c, d] = [i, j].flatMap((k) => [
        50 * (this.boxes[k][0] + this.boxes[k][2]), 50 * (this.boxes[k][1] + this.boxes[k][3])]);
      const path = `M${a} ${b}L${c} ${d}`, dots = `M${a} ${b}h0M${c} ${d}h0`;
      return `<path class="box-halo" d="${path}"/><path class="box-halo box-dot" d="${dots}"/>`
        + `<path stroke="${this.colour(j)}" d="${path}"/>`
        + `<path stroke="${this.colour(j)}" class="box-dot" d="${dots}"/>`;
    }).join("");
  }

  /** The box in words, for those who listen to the page. */
  told(i) {
    const [x0, y0, x1, y1] = this.boxes[i].map((part) => Math.round(100 * part));
    return `${this.nameOf(i)}: left ${x0}, top ${y0}, right ${x1}, bottom ${y1} percent`
      + (this.movable(i) ? "" : ", fixed");
  }

  remove() {
    clearTimeout(this.timer);
    this.watch.disconnect();
    URL.revokeObjectURL(this.image.src);
  }
}

/** What a page calls to show a view of this kind, and what it calls when it takes it away. */
const shown = (View) => ({ model, el }) => {
  const view = new View(model, el);
  return () => view.remove();
};
