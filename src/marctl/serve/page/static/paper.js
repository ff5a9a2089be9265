// The paper: a drawing or a picture, and its undo history.

const SIDE = 280; // pixels; side of the PNG that is sent
const PEN = 0.075; // the pen's width, as a fraction of the side
const WHITE = "#fff", BLACK = "#000"; // as sent, whatever the screen's colours are
const DRAWING = 500; // milliseconds in which an example is drawn

// A stroke is a list of points [x, y], from 0 to 1, from the left and the top.
const EMPTY = Object.freeze({ strokes: Object.freeze([]), file: null, image: null });

/** Sends `change` while something is drawn, `settle` when a stroke has ended or the picture was replaced. */
export class Paper extends EventTarget {
  #canvas;
  #states = [EMPTY]; // the last one is on the paper
  #pointer = null; // the one that is drawing
  #turn = 0; // changes with every action, so that an example or a slow picture in progress stops
  #moving = false;

  constructor(canvas) {
    super();
    this.#canvas = canvas;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#go(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => this.#end(event));
    }
    new ResizeObserver(() => this.#paint()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  get isEmpty() {
    return this.#state === EMPTY;
  }

  get canGoBack() {
    return this.#states.length > 1;
  }

  /** The file on the paper, null for a drawing. */
  get file() {
    return this.#state.file;
  }

  get isShown() {
    return this.#state.file === null || this.#state.image !== null;
  }

  /** Whether it is being drawn on. */
  get isMoving() {
    return this.#moving;
  }

  undo() {
    if (!this.canGoBack) return;
    this.#stop();
    this.#states.pop();
    this.#changed(true);
  }

  clear() {
    if (this.isEmpty) this.#stop();
    else this.#put(EMPTY);
  }

  /** Take a picture file; one that the browser cannot show may be one that the server reads. */
  async take(file) {
    this.#stop();
    const turn = this.#turn;
    const image = await createImageBitmap(file).catch(() => null);
    // In the meantime there may be another picture or a drawing.
    if (turn === this.#turn) this.#put({ ...EMPTY, file, image });
  }

  /** Draw strokes as if by hand, or at once if the user prefers reduced motion. */
  play(strokes) {
    this.#stop();
    this.#states.push({ ...EMPTY, strokes: [] });
    const turn = this.#turn;
    this.#moving = true;
    const all = strokes.reduce((count, stroke) => count + stroke.length, 0);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const began = performance.now();
    const frame = (now) => {
      if (turn !== this.#turn) return;
      const part = still ? 1 : Math.min(1, (now - began) / DRAWING);
      this.#state.strokes.splice(0, Infinity, ...firstPoints(strokes, Math.ceil(part * all)));
      this.#moving = part < 1;
      this.#changed(part === 1);
      if (part < 1) requestAnimationFrame(frame);
    };
    frame(began);
  }

  /** Return what to send: the file itself, or the drawing as a PNG, black on white. */
  async picture() {
    const { strokes, file } = this.#state;
    if (file) return file;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d");
    context.fillStyle = WHITE;
    context.fillRect(0, 0, SIDE, SIDE);
    draw(context, strokes, SIDE, BLACK);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }

  get #state() {
    return this.#states.at(-1);
  }

  #begin(event) {
    if (this.#pointer !== null || event.button !== 0) return;
    event.preventDefault();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#stop();
    this.#pointer = event.pointerId;
    this.#moving = true;
    // Drawing on a picture starts a new drawing; undo brings the picture back.
    this.#states.push({ ...EMPTY, strokes: [...this.#state.strokes, [this.#point(event)]] });
    this.#changed(false);
  }

  #go(event) {
    if (event.pointerId !== this.#pointer) return;
    // A pointer moves more often than the screen is drawn; these are all its positions.
    const events = event.getCoalescedEvents?.() ?? [];
    const points = (events.length ? events : [event]).map((one) => this.#point(one));
    this.#state.strokes.at(-1).push(...points);
    this.#changed(false);
  }

  #end(event) {
    if (event.pointerId !== this.#pointer) return;
    this.#stop();
    this.#changed(true);
  }

  #point(event) {
    const box = this.#canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #put(state) {
    this.#stop();
    this.#states.push(state);
    this.#changed(true);
  }

  /** Stop drawing, by hand or by example. */
  #stop() {
    this.#turn += 1;
    this.#pointer = null;
    this.#moving = false;
  }

  #changed(settled) {
    this.#paint();
    this.dispatchEvent(new Event(settled ? "settle" : "change"));
  }

  #paint() {
    const canvas = this.#canvas;
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, side, side);
    const { strokes, image } = this.#state;
    if (image) fit(context, image, side);
    draw(context, strokes, side, getComputedStyle(canvas).getPropertyValue("--ink"));
  }
}

function draw(context, strokes, side, color) {
  context.strokeStyle = color;
  context.lineWidth = PEN * side;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    const points = stroke.map(([x, y]) => [x * side, y * side]);
    context.beginPath();
    context.moveTo(...points[0]);
    // A smooth curve through the midpoints, with the points as control points.
    for (let i = 1; i < points.length - 1; i++) {
      const [x, y] = points[i], [next, below] = points[i + 1];
      context.quadraticCurveTo(x, y, (x + next) / 2, (y + below) / 2);
    }
    const [x, y] = points.at(-1);
    context.lineTo(x + 0.01, y); // so that a dot is a line too
    context.stroke();
  }
}

function fit(context, image, side) {
  const scale = side / Math.max(image.width, image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  context.imageSmoothingEnabled = scale < 1;
  context.drawImage(image, (side - width) / 2, (side - height) / 2, width, height);
}

function firstPoints(strokes, count) {
  const some = [];
  for (const stroke of strokes) {
    if (count <= 0) break;
    some.push(stroke.slice(0, count));
    count -= stroke.length;
  }
  return some;
}
