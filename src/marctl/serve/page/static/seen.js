// The model's input, pixel by pixel, and which of these pixels count for its answer or against it.

const GAMMA = 0.6; // so that small contributions are still visible

export class Seen {
  #picture;
  #overlay;
  #frame;

  constructor(picture, overlay, frame) {
    this.#picture = picture;
    this.#overlay = overlay;
    this.#frame = frame;
    this.empty();
  }

  empty() {
    this.plain();
    paint(this.#picture, [[0]], () => "transparent");
    this.#picture.setAttribute("aria-label", "What the model sees: nothing yet");
  }

  /** Show rows of grey levels, or of [red, green, blue], 0 to 255. Return height and width. */
  show(rows) {
    this.plain();
    paint(this.#picture, rows, (value) => `rgb(${[value, value, value].flat().slice(0, 3).join(" ")})`);
    const size = [rows.length, rows[0].length];
    this.#picture.setAttribute("aria-label", `What the model sees: your picture at ${size.join(" by ")} pixels`);
    return size;
  }

  /** Show a number per pixel, or per colour of a pixel: above 0 it counts for the answer, below 0 against it. */
  explain(attributions) {
    const rows = attributions.map((row) => row.map((value) => [value].flat().reduce((sum, one) => sum + one)));
    const largest = rows.flat().reduce((most, share) => Math.max(most, Math.abs(share)), 0) || 1;
    const style = getComputedStyle(this.#frame);
    const [pro, con] = ["--accent", "--against"].map((name) => style.getPropertyValue(name).trim());
    paint(this.#overlay, rows, (value) => [value > 0 ? pro : con, (Math.abs(value) / largest) ** GAMMA]);
    this.#frame.classList.add("explained");
  }

  /** Show only the pixels. */
  plain() {
    this.#frame.classList.remove("explained");
    paint(this.#overlay, [[0]], () => "transparent");
  }
}

function paint(canvas, rows, colorOf) {
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const context = canvas.getContext("2d");
  rows.forEach((row, y) => row.forEach((value, x) => {
    const [color, strength = 1] = [colorOf(value)].flat();
    context.fillStyle = color;
    context.globalAlpha = strength;
    context.fillRect(x, y, 1, 1);
  }));
}
