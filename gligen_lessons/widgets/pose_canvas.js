// Skeletons of COCO's 17 joints to bend, a word for each, and the picture that Python paints of
// them. Follows box_canvas.js and grounding_canvas.js in one module. Traits besides those that
// both kinds of canvas have: keypoints, words, choices, limit, starts, joints, bones (see
// pose_canvas.py). A figure is 17 joints [x, y, visible] in 0..1, visible 2 where it counts.

const FACE = 5;                                       // so many joints come first, drawn smaller
const TORSO = [5, 6, 12, 11];                         // shoulders and hips, in a round
const SPOTS = [.5, .22, .78];                         // where the middle of a new figure may be
const SEEN = 2, UNSEEN = 1;
const EARS = [3, 4];
const LAYERS = ["halo", "trunk", "bones", "grab"];
const ERASE = ["Delete", "Backspace"];

/** The least box around a figure's joints. */
function around(figure) {
  const [xs, ys] = [0, 1].map((k) => figure.map((joint) => joint[k]));
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

const middle = (figure) => (around(figure)[0] + around(figure)[2]) / 2;
const inside = ([x, y, v]) => [clamp(x, 0, 1), clamp(y, 0, 1), v];

/** The whole figure shifted by (dx, dy), as far as the picture reaches. */
function shifted(figure, dx, dy) {
  const [x, y] = around(figure), [right, down] = moved(around(figure), dx, dy);
  return figure.map(([px, py, v]) => inside([px + right - x, py + down - y, v]));
}

/** The figure with joint j moved by (dx, dy), as far as the picture reaches. */
const bent = (figure, j, dx, dy) =>
  figure.map(([x, y, v], k) => (k === j ? inside([x + dx, y + dy, v]) : [x, y, v]));

/** Left for right about its middle; what was its left hand is now its right one. */
const mirrored = (figure, twins) => twins.map((k) => inside(
  [2 * middle(figure) - figure[k][0], figure[k][1], figure[k][2]]));

/** The path of a circle on which two points lie across from each other. */
function circle([ax, ay], [bx, by]) {
  const r = Math.hypot(bx - ax, by - ay) / 2;
  return `M${ax} ${ay}A${r} ${r} 0 1 1 ${bx} ${by}A${r} ${r} 0 1 1 ${ax} ${ay}Z`;
}

/** Draw a figure's bones, torso and head into the paths of its group; what is hidden has none. */
function trace(group, figure, bones) {
  const seen = (j) => figure[j][2] === SEEN, at = (j) => [100 * figure[j][0], 100 * figure[j][1]];
  const lines = bones.filter((bone) => bone.every(seen)).map((bone) => `M${bone.map(at).join("L")}`);
  const trunk = (TORSO.every(seen) ? `M${TORSO.map(at).join("L")}Z` : "")
    + (EARS.every(seen) ? circle(...EARS.map(at)) : "");
  const drawn = { halo: lines.join(""), trunk, bones: lines.join(""), grab: lines.join("") + trunk };
  LAYERS.forEach((layer, k) => group.children[k].setAttribute("d", drawn[layer]));
}

class PoseView extends PaintView {
  make(el) {
    const names = this.model.get("joints");
    const swap = (name) => name.replace(/left|right/, (side) => (side === "left" ? "right" : "left"));
    this.twins = names.map((name) => names.indexOf(swap(name)));
    super.make(el);
    this.model.on("change:keypoints", () => this.follow());
    this.model.on("change:words", () => this.reword());
    this.model.on("change:choices", () => this.build());
  }

  hint() {
    return "Drag a joint, or the figure by its bones. Keys: Tab chooses, arrows move, Shift + "
      + "arrows move all, M mirrors, Delete hides, Enter goes to paint.";
  }

  texts() {
    return { caption: "where it is, what else is there", list: "a word for each skeleton",
      more: "add a skeleton", over: "show the skeleton it was painted for" };
  }

  handle() {}                                         // boxes have corners to pull, figures none

  drawing() {}                                        // on free ground nothing is drawn

  makeWords(panel) {
    super.makeWords(panel);
    const row = add(panel, "div", "grounding-row");
    row.append(this.more);
    this.veil = button(row, "pose-hide", "", () => this.hide(...this.chosen));
  }

  makeControls(panel) {
    this.makeSeed(panel);
  }

  build() {
    this.takeFigures();
    this.takeWords();
    this.stage.setAttribute("aria-label", this.model.get("label"));
    for (const part of [this.layer, this.tags, this.lines, this.list]) part.replaceChildren();
    this.tag = add(this.tags, "span", "box-name");
    this.bodies = this.figures.map((_, f) => this.body(f));
    this.elements = this.figures.map((figure, f) => figure.map((_, j) => this.joint(f, j)));
    this.fields = this.figures.map((_, f) => this.row(f));
    this.more.disabled = this.figures.length >= this.model.get("limit");
    this.pointed = null;
    this.choose(this.chosen && this.chosen[0] < this.figures.length ? this.chosen : null);
  }

  takeFigures() {
    this.figures = this.model.get("keypoints").map((figure) => figure.map((joint) => [...joint]));
  }

  takeWords() {
    const words = this.model.get("words");
    this.words = this.figures.map((_, f) => words[f] ?? this.model.get("choices")[0]);
  }

  /** The limbs and the torso of figure f, by which the whole of it is dragged. */
  body(f) {
    const group = this.group(this.lines, f);
    this.pull(group.lastElementChild, () => {
      const j = this.chosen?.[0] === f ? this.chosen[1] : 0;
      this.elements[f][j].focus({ preventScroll: true });
      return this.figures[f];
    }, (figure, dx, dy) => this.put(f, shifted(figure, dx, dy)), () => this.where(f));
    return group;
  }

  group(parent, f) {
    parent.insertAdjacentHTML("beforeend",
      `<g>${LAYERS.map((layer) => `<path class="pose-${layer}"/>`).join("")}</g>`);
    parent.lastElementChild.style.setProperty("--colour", this.colour(f));
    return parent.lastElementChild;
  }

  joint(f, j) {
    const dot = ours(add(this.layer, "div", j < FACE ? "pose-joint pose-face" : "pose-joint"));
    dot.style.setProperty("--colour", this.colour(f));
    dot.tabIndex = 0;
    dot.setAttribute("role", "button");
    dot.setAttribute("aria-roledescription", "movable joint");
    dot.addEventListener("focus", () => this.choose([f, j]));
    dot.addEventListener("keydown", (event) => this.key(event, f, j));
    dot.addEventListener("pointerenter", () => this.point([f, j]));
    dot.addEventListener("pointerleave", () => this.point(null));
    this.pull(dot, () => {
      dot.focus({ preventScroll: true });
      return this.figures[f];
    }, (figure, dx, dy) => this.put(f, bent(figure, j, dx, dy)), () => this.told(f, j));
    return dot;
  }

  /** The word of figure f, between its number and buttons that mirror and remove it. */
  row(f) {
    const row = add(this.list, "div", "grounding-row");
    row.style.setProperty("--colour", this.colour(f));
    add(row, "span", "box-swatch", f).setAttribute("aria-hidden", "true");
    const word = ours(add(row, "select", "pose-word"));
    for (const choice of this.model.get("choices")) add(word, "option", "", choice);
    word.value = this.words[f];
    word.setAttribute("aria-label", `what skeleton ${f} is`);
    word.addEventListener("input", () => {
      this.words[f] = word.value;
      this.place();
      this.later();
    });
    button(row, "pose-mirror", "mirror", () => this.mirror(f))
      .setAttribute("aria-label", `mirror skeleton ${f}`);
    button(row, "grounding-remove", "×", () => this.drop(f))
      .setAttribute("aria-label", `remove skeleton ${f}`);
    return word;
  }

  key(event, f, j) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const { key, shiftKey } = event, step = this.model.get("step");
    if (key in ARROWS) {
      const [dx, dy] = ARROWS[key].map((d) => d * step), figure = this.figures[f];
      this.put(f, shiftKey ? shifted(figure, dx, dy) : bent(figure, j, dx, dy));
      this.status.textContent = shiftKey ? this.where(f) : this.told(f, j);
    } else if (ERASE.includes(key)) this.hide(f, j);
    else if (key.toLowerCase() === "m") this.mirror(f);
    else if (key === "Enter") this.press.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  mirror(f) {
    this.put(f, mirrored(this.figures[f], this.twins));
    this.status.textContent = `Mirrored ${this.nameOf(f)}`;
  }

  /** Joint j of figure f counts no longer, or counts again; one at least always does. */
  hide(f, j) {
    const flipped = this.figures[f].map(([x, y, v], k) =>
      [x, y, k !== j ? v : v === SEEN ? UNSEEN : SEEN]);
    if (!flipped.some(([, , v]) => v === SEEN)) {
      this.model.set("message", "One joint at least must stay visible.");
      return this.model.save_changes();
    }
    this.put(f, flipped);
    this.status.textContent = this.told(f, j);
  }

  put(f, figure) {
    this.figures[f] = figure;
    this.place();
    this.later();
  }

  choose(joint) {
    this.chosen = joint;
    this.place();
  }

  point(joint) {
    this.pointed = joint;
    this.name();
  }

  /** The next start pose, where the other figures leave most room. */
  free() {
    const starts = this.model.get("starts"), figure = starts[this.figures.length % starts.length];
    const room = (x) => Math.min(1, ...this.figures.map((other) => Math.abs(middle(other) - x)));
    const spot = SPOTS.reduce((best, x) => (room(x) > room(best) + 1e-6 ? x : best));
    return shifted(figure, spot - middle(figure), 0);
  }

  grow(figure) {
    this.become([...this.figures, figure], [...this.words, this.model.get("choices")[0]]);
    this.elements.at(-1)[0].focus();
    this.status.textContent = `Added ${this.where(this.figures.length - 1)}`;
  }

  drop(f) {
    const gone = this.nameOf(f);
    this.become(erased(this.figures, f), erased(this.words, f));
    (this.elements[Math.min(f, this.figures.length - 1)]?.[0] ?? this.more).focus();
    this.status.textContent = `Removed ${gone}`;
  }

  /** Other figures: told to Python in one message, and made anew here. */
  become(figures, words) {
    this.rest();
    this.model.set("message", "");
    this.model.set("words", words);
    this.model.set("keypoints", figures);
    this.model.save_changes();
  }

  send() {
    if (this.held) return this.later();
    this.rest();
    this.model.set("words", [...this.words]);
    this.model.set("keypoints", this.figures.map((figure) => figure.map((joint) => [...joint])));
    this.model.save_changes();
  }

  /** Nothing waits any more to be sent. */
  rest() {
    clearTimeout(this.timer);
    this.timer = null;
  }

  /** Python, or another view, has moved figures; what waits to be sent from here is newer. */
  follow() {
    if (this.timer !== null) return;
    if (this.model.get("keypoints").length !== this.figures.length) return this.build();
    this.takeFigures();
    this.place();
  }

  reword() {
    if (this.timer !== null) return;
    this.takeWords();
    this.fields.forEach((field, f) => { field.value = this.words[f]; });
    this.place();
  }

  link() {}                                           // bones are drawn with their joints

  /** Put bones and joints where the figures are. */
  place() {
    this.figures.forEach((figure, f) => {
      trace(this.bodies[f], figure, this.model.get("bones"));
      this.elements[f].forEach((dot, j) => {
        const [x, y, v] = figure[j];
        Object.assign(dot.style, { left: percent(x), top: percent(y) });
        dot.classList.toggle("pose-hidden", v !== SEEN);
        dot.classList.toggle("pose-chosen", this.is(f, j));
        dot.setAttribute("aria-label", this.told(f, j));
      });
    });
    const [f, j] = this.chosen ?? [];
    this.veil.disabled = !this.chosen;
    this.veil.textContent = !this.chosen ? "hide a joint"
      : `${this.figures[f][j][2] === SEEN ? "hide" : "show"} ${this.model.get("joints")[j]}`;
    this.name();
  }

  is(f, j) {
    return this.chosen?.[0] === f && this.chosen[1] === j;
  }

  /** The name of the joint under the pointer, or else of the chosen one, stands above it. */
  name() {
    this.tag.hidden = !(this.pointed ?? this.chosen);
    if (this.tag.hidden) return;
    const [f, j] = this.pointed ?? this.chosen, [x, y] = this.figures[f][j];
    this.tag.textContent = this.model.get("joints")[j];
    this.tag.style.setProperty("--colour", this.colour(f));
    const { clientWidth: wide, clientHeight: high } = this.layer;
    const { offsetWidth: w, offsetHeight: h } = this.tag, above = y * high - h - 12;
    Object.assign(this.tag.style, { left: percent(clamp(x * wide - w / 2, 0, wide - w) / wide),
      top: percent((above < 0 ? y * high + 12 : above) / high) });
  }

  nameOf(f) {
    return `skeleton ${f}, ${this.words[f]}`;
  }

  /** A joint in words, for those who listen to the page. */
  told(f, j) {
    const [x, y, v] = this.figures[f][j];
    return `${this.model.get("joints")[j]} of ${this.nameOf(f)}: left ${Math.round(100 * x)}, top `
      + `${Math.round(100 * y)} percent${v === SEEN ? "" : ", hidden"}`;
  }

  where(f) {
    const [x0, y0, x1, y1] = around(this.figures[f]).map((part) => Math.round(100 * part));
    return `${this.nameOf(f)}: left ${x0}, top ${y0}, right ${x1}, bottom ${y1} percent`;
  }

  /** What the picture was painted for, in words, and as bones over it if that is asked for. */
  showPainted() {
    const { caption, words = [], keypoints = [] } = this.model.get("generated");
    this.result.alt = words.length || caption ? ["Painted", ...words, caption].filter(Boolean)
      .join(", ") : "";
    this.over.innerHTML = `<svg class="box-links" viewBox="0 0 100 100"
      preserveAspectRatio="none"></svg>`;
    if (this.model.get("over")) keypoints.forEach((figure, f) =>
      trace(this.group(this.over.firstElementChild, f), figure, this.model.get("bones")));
  }
}
