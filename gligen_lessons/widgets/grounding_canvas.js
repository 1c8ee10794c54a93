// Boxes to draw, a phrase for each, and the picture that Python paints of them. Follows
// box_canvas.js in one module. Traits besides those: caption, phrases, seed, tau, limit, least,
// repaint, over, requested, painting, generated, message (see grounding_canvas.py). Words and
// boxes are sent when they rest.

const REST = 400;                                     // ms without a change before they are sent
const SIDE = .3;                                      // of a box that the button adds
const PLACES = [.35, .05, .65];                       // where its left and top may be

const erased = (list, i) => list.filter((_, k) => k !== i);

/** How much two boxes share. */
const shared = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]))
  * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));

/** Leave the keys that it gets to it: Lab must not read them as its shortcuts. */
function ours(element) {
  element.dataset.lmSuppressShortcuts = "true";
  return element;
}

/** A control behind its label. */
function field(parent, text, attributes, kind = "grounding-field") {
  const label = add(parent, "label", kind);
  add(label, "span", "", text);
  const control = ours(add(label, "input", ""));
  control.setAttribute("aria-label", text);
  return Object.assign(control, attributes);
}

function button(parent, name, text, press) {
  const made = ours(add(parent, "button", `grounding-button ${name}`, text));
  made.type = "button";
  made.addEventListener("click", press);
  return made;
}

class PaintView extends BoxView {
  make(el) {
    ours(el);
    const parts = add(el, "div", "grounding-parts");
    const [paper, panel, result] = ["paper", "panel", "result"].map(
      (name) => add(parts, "div", `grounding-${name}`));
    super.make(paper);
    this.drawing();
    this.makeWords(panel);
    this.makeControls(panel);
    this.makePress(panel);
    this.makeResult(result);
    el.addEventListener("focusout", () => this.timer !== null && !this.held && this.send());
    this.model.on("change:phrases", () => this.reword());
    this.model.on("change:painting", () => this.busy());
    this.model.on("change:generated", () => this.showPainted());
    this.busy();
    this.showPainted();
  }

  hint() {
    return "Drag on free ground to draw a box. Keys: Tab chooses, arrows move, Shift + arrows "
      + "resize, Enter goes to its phrase, Delete removes.";
  }

  /** What the fields and buttons say. */
  texts() {
    return { caption: "the whole picture", list: "a phrase for each box", more: "add a box",
      over: "show the boxes it was painted for" };
  }

  makeWords(panel) {
    const { caption, list, more } = this.texts();
    this.bind("caption", "value", field(panel, "caption", { type: "text", spellcheck: false,
      className: "grounding-caption", placeholder: caption }, "grounding-field grounding-wide"));
    this.list = add(panel, "div", "grounding-phrases");
    this.list.setAttribute("role", "group");
    this.list.setAttribute("aria-label", list);
    this.more = button(panel, "grounding-add", more, () => this.grow(this.free()));
  }

  makeControls(panel) {
    this.makeSeed(panel);
    this.slide("tau", field(panel, "tau", { type: "range", min: 0, max: 1, step: .05 }));
    this.bind("repaint", "checked", field(panel, "paint again when a box is moved",
      { type: "checkbox" }, "grounding-check"));
  }

  makeSeed(panel) {
    const most = Math.max(99, this.model.get("seed"));
    this.slide("seed", field(panel, "seed", { type: "range", min: 0, max: most, step: 1 }));
  }

  makePress(panel) {
    this.press = button(panel, "grounding-paint", "paint", () => this.ask());
    const note = add(panel, "div", "grounding-message");
    note.setAttribute("role", "status");
    this.bind("message", "textContent", note);
  }

  makeResult(result) {
    this.frame = add(result, "div", "grounding-frame");
    this.blank = add(this.frame, "div", "grounding-blank", "The picture comes here.");
    this.result = add(this.frame, "img", "grounding-picture");
    this.result.draggable = false;
    this.over = add(this.frame, "div", "grounding-boxes");
    this.over.setAttribute("aria-hidden", "true");
    this.bind("over", "checked", field(result, this.texts().over, { type: "checkbox" },
      "grounding-check"), () => this.showPainted());
  }

  /** Let a control and a trait follow each other. */
  bind(trait, key, control, then = () => {}) {
    const show = () => {
      if (control[key] !== this.model.get(trait)) control[key] = this.model.get(trait);
      then();
    };
    control.classList.add(`grounding-${trait}`);
    control.addEventListener("input", () => {
      this.model.set(trait, control[key]);
      this.later();
    });
    this.model.on(`change:${trait}`, show);
    show();
  }

  slide(trait, control) {
    const number = add(control.parentElement, "span", "grounding-number");
    this.bind(trait, "valueAsNumber", control, () => {
      number.textContent = Number(this.model.get(trait).toFixed(2));
    });
  }

  build() {
    const words = this.model.get("phrases");
    this.phrases = this.model.get("boxes").map((_, i) => words[i] ?? "");
    super.build();
    this.list.replaceChildren();
    this.fields = this.phrases.map((_, i) => this.row(i));
    this.more.disabled = this.boxes.length >= this.model.get("limit");
  }

  nameOf(i) {
    return this.phrases[i] || `box ${i}`;
  }

  /** The field for the phrase of box i, between its number and a button that removes both. */
  row(i) {
    const row = add(this.list, "div", "grounding-row");
    row.style.setProperty("--colour", this.colour(i));
    add(row, "span", "box-swatch", i).setAttribute("aria-hidden", "true");
    const words = add(row, "input", "grounding-phrase");
    Object.assign(words, { type: "text", value: this.phrases[i], spellcheck: false,
      placeholder: "what is in this box" });
    words.setAttribute("aria-label", `phrase of box ${i}`);
    words.addEventListener("focus", () => this.choose(i));
    words.addEventListener("input", () => this.call(i, words.value));
    words.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      (this.fields[i + 1] ?? this.press).focus();
    });
    button(row, "grounding-remove", "×", () => this.drop(i))
      .setAttribute("aria-label", `remove box ${i}`);
    return words;
  }

  /** Box i is called so from now on. */
  call(i, phrase) {
    this.phrases[i] = phrase;
    this.tags.children[i].textContent = this.nameOf(i);
    this.place();
    this.later();
  }

  /** Python has changed phrases; what waits to be sent from here is newer. */
  reword() {
    if (this.timer !== null) return;
    const words = this.model.get("phrases");
    if (words.length !== this.fields.length) return this.build();
    this.phrases = [...words];
    this.fields.forEach((field, i) => {
      if (field.value !== words[i]) field.value = words[i];
      this.tags.children[i].textContent = this.nameOf(i);
    });
    this.place();
  }

  key(event, i) {
    const erase = event.key === "Delete" || event.key === "Backspace";
    if (!erase && event.key !== "Enter") return super.key(event, i);
    event.preventDefault();
    if (erase) this.drop(i); else this.fields[i].focus();
  }

  /** Draw a new box where the pointer is pressed on free ground and pulled. */
  drawing() {
    let from = null, box = null, band = null;
    const at = ({ clientX, clientY }) => {
      const { left, top, width, height } = this.layer.getBoundingClientRect();
      return [clamp((clientX - left) / width, 0, 1), clamp((clientY - top) / height, 0, 1)];
    };
    this.layer.addEventListener("pointerdown", (event) => {
      if (event.button || event.target !== this.layer) return;
      event.preventDefault();
      this.layer.setPointerCapture(event.pointerId);
      this.held = true;
      [from, box] = [at(event), null];
      band = add(this.stage, "div", "grounding-band");
    });
    this.layer.addEventListener("pointermove", (event) => {
      if (!from) return;
      const [x, y] = at(event);
      box = [Math.min(x, from[0]), Math.min(y, from[1]), Math.max(x, from[0]),
        Math.max(y, from[1])];
      lay(band, box);
    });
    this.layer.addEventListener("lostpointercapture", () => {
      if (!from) return;
      [from, this.held] = [null, false];
      band.remove();
      if (box) this.drawn(box);
    });
  }

  drawn(box) {
    const [least, limit] = [this.model.get("least"), this.model.get("limit")];
    const small = Math.min(box[2] - box[0], box[3] - box[1]) < least;
    if (!small && this.boxes.length < limit) return this.grow(box, true);
    this.model.set("message", small ? "That box is too small to paint in: pull it further."
      : `No more than ${limit} boxes fit: remove one first.`);
    this.model.save_changes();
  }

  /** The place for a new box that is most free. */
  free() {
    const all = PLACES.flatMap((y) => PLACES.map((x) => [x, y, x + SIDE, y + SIDE]));
    const taken = (box) => this.boxes.reduce((sum, other) => sum + shared(box, other), 0);
    return all.reduce((best, box) => (taken(box) < taken(best) - 1e-6 ? box : best));
  }

  grow(box, write = false) {
    this.become([...this.boxes, box], [...this.phrases, ""]);
    (write ? this.fields : this.elements).at(-1).focus();
    this.status.textContent = `Added ${this.told(this.boxes.length - 1)}`;
  }

  drop(i) {
    const gone = this.nameOf(i);
    this.become(erased(this.boxes, i), erased(this.phrases, i));
    (this.elements[Math.min(i, this.boxes.length - 1)] ?? this.more).focus();
    this.status.textContent = `Removed ${gone}`;
  }

  /** Other boxes: told to Python in one message, and made anew here. */
  become(boxes, phrases) {
    clearTimeout(this.timer);
    this.timer = null;
    this.model.set("message", "");
    this.model.set("phrases", phrases);
    this.model.set("boxes", boxes);
    this.model.save_changes();
  }

  later() {
    this.model.set("message", "");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send(), REST);
  }

  send() {
    if (this.held) return this.later();
    clearTimeout(this.timer);
    this.model.set("phrases", [...this.phrases]);
    super.send();
  }

  /** Ask for a picture, in one message with all that was changed before. */
  ask() {
    if (this.model.get("painting")) return;
    this.model.set("requested", this.model.get("requested") + 1);
    this.model.set("painting", true);                 // at once, however busy Python is
    this.send();
  }

  /** While it paints the button says so. It keeps the focus, which one truly disabled loses. */
  busy() {
    const painting = this.model.get("painting");
    this.press.textContent = painting ? "painting …" : "paint";
    this.press.setAttribute("aria-disabled", painting);
    this.frame.setAttribute("aria-busy", painting);
  }

  /** The picture: faint under the boxes, and full at the right. */
  paint() {
    const none = !this.model.get("picture").byteLength;
    [this.image.hidden, this.result.hidden, this.blank.hidden] = [none, none, !none];
    if (none) return;
    super.paint();
    this.result.src = this.image.src;
    this.result.onload = () => {
      const shape = `${this.result.naturalWidth} / ${this.result.naturalHeight}`;
      this.stage.style.aspectRatio = this.frame.style.aspectRatio = shape;
    };
  }

  /** What the picture was painted for, in words, and as boxes over it if that is asked for. */
  showPainted() {
    const { caption, phrases = [], boxes = [] } = this.model.get("generated");
    this.result.alt = ["Painted", caption, ...phrases].filter(Boolean).join(", ");
    this.over.replaceChildren();
    if (this.model.get("over")) boxes.forEach((box, i) => {
      const one = add(this.over, "div", "box-one box-fixed");
      one.style.setProperty("--colour", this.colour(i));
      lay(one, box);
      add(one, "span", "box-name", phrases[i]);
    });
  }
}
