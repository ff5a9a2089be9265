// A bar per probability: all labels in their order if they fit, else the most likely ones.

const ALL = 12; // up to this many labels are all shown, in their order
const LIKELIEST = 10; // shown if there are more

const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

export function percentOf(probability) {
  return percent.format(probability);
}

export class Bars {
  #rows;
  #labels;

  constructor(list, labels) {
    this.#labels = labels;
    list.classList.toggle("words", labels.some((label) => label.length > 2));
    const count = labels.length <= ALL ? labels.length : LIKELIEST;
    this.#rows = Array.from({ length: count }, () => rowOf(list));
    this.empty();
  }

  /** How many probabilities to request. */
  get count() {
    return this.#rows.length;
  }

  empty() {
    const names = this.#inOrder ? this.#labels : [];
    this.#rows.forEach((row, index) => fill(row, names[index] ?? "", null, false));
  }

  /** Show the most likely labels, each {label, index, probability}, the most likely first. */
  show(likeliest) {
    const shown = this.#inOrder ? [...likeliest].sort((one, other) => one.index - other.index) : likeliest;
    this.#rows.forEach((row, index) => {
      const one = shown[index];
      fill(row, one?.label ?? "", one?.probability ?? null, one === likeliest[0]);
    });
  }

  get #inOrder() {
    return this.#rows.length === this.#labels.length;
  }
}

function rowOf(list) {
  const row = document.createElement("li");
  const [name, track, share] = ["name", "track", "percent"].map((kind) => {
    const part = document.createElement("span");
    part.className = kind;
    row.append(part);
    return part;
  });
  const bar = document.createElement("span");
  bar.className = "fill";
  track.append(bar);
  track.setAttribute("aria-hidden", "true");
  list.append(row);
  return { row, name, bar, share };
}

function fill({ row, name, bar, share }, label, probability, isFirst) {
  row.classList.toggle("first", isFirst);
  name.textContent = name.title = label;
  bar.style.transform = `translateX(${100 * (probability ?? 0) - 101}%)`;
  share.textContent = probability === null ? "" : percentOf(probability);
}
