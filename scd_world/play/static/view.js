// What is drawn: pictures with the hand's target in them, and curves over the episode.

/** One camera: a picture, its caption, and the ring that shows where the action points. */
export class Pane {
  constructor(parent, title, note, truth, region) {
    this.region = region; // top, left, height, width of the camera's image in the frame; null: all of it
    this.root = document.createElement("figure");
    this.root.className = truth ? "pane truth" : "pane";
    this.root.innerHTML = '<figcaption><b></b><span></span></figcaption><div class="picture"><canvas></canvas></div>';
    this.root.querySelector("b").textContent = title;
    this.note = this.root.querySelector("span");
    this.note.textContent = note;
    this.picture = this.root.querySelector(".picture");
    this.canvas = this.root.querySelector("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${title}, ${note}`);
    parent.append(this.root);
    new ResizeObserver(() => {
      Object.assign(this, { width: this.picture.clientWidth, height: this.picture.clientHeight });
      if (this.ring) this.moveRing();
    }).observe(this.picture);
  }

  /** By a transform, which lays nothing out anew: it moves as often as the hand does. */
  moveRing() {
    this.ring.style.transform = `translate(${this.place[0] * this.width}px, ${this.place[1] * this.height}px)`;
  }

  draw(bitmap) {
    const [top, left, height, width] = this.region ?? [0, 0, bitmap.height, bitmap.width];
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.canvas.getContext("2d").drawImage(bitmap, left, top, width, height, 0, 0, width, height);
  }

  /** Puts the ring at shares of the picture; in the middle along an axis that is null, nowhere if both are. */
  aim([u, v]) {
    this.ring ??= this.picture.appendChild(Object.assign(document.createElement("div"), { className: "target" }));
    this.ring.hidden = u === null && v === null;
    this.place = [u ?? 0.5, v ?? 0.5];
    this.moveRing();
  }
}

/** A curve over the episode: its last values, as many as fit, with a dot at the moment that is looked at. */
export class Curve {
  /** bounds: lowest and highest value; undefined: those of what is shown. */
  constructor(canvas, bounds) {
    Object.assign(this, { canvas, bounds });
    new ResizeObserver(() => this.measure()).observe(canvas);
  }

  /** Sizes and color are asked for here alone: each question in the middle of a frame lays the page out anew. */
  measure() {
    const scale = devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.width * scale);
    this.canvas.height = Math.round(this.height * scale);
    this.ink = this.canvas.getContext("2d");
    this.ink.setTransform(scale, 0, 0, scale, 0, 0);
    this.color = getComputedStyle(this.canvas).getPropertyValue("--accent");
    if (this.values) this.draw(this.values, this.here);
  }

  draw(values, here) {
    Object.assign(this, { values, here });
    const { ink, width, height } = this;
    if (!width) return;
    ink.clearRect(0, 0, width, height);
    const first = Math.max(0, values.length - Math.floor(width / 2));
    const shown = values.slice(first);
    const known = shown.filter((value) => value !== null && value !== undefined);
    if (!known.length) return;
    const [low, high] = this.bounds ?? [Math.min(...known), Math.max(...known)];
    const x = (i) => 3 + (shown.length < 2 ? 0 : i * (width - 6) / (Math.max(shown.length, 40) - 1));
    const y = (value) => height - 4 - (height - 8) * (high > low ? (value - low) / (high - low) : 0.5);
    ink.lineWidth = 1.6;
    ink.lineJoin = "round";
    ink.strokeStyle = ink.fillStyle = this.color;
    ink.beginPath();
    shown.forEach((value, i) => value !== null && value !== undefined && ink.lineTo(x(i), y(value)));
    ink.stroke();
    const at = here - first;
    if (at < 0 || shown[at] === null || shown[at] === undefined) return;
    ink.beginPath();
    ink.arc(x(at), y(shown[at]), 3, 0, 7);
    ink.fill();
  }
}

/** Changes a text where it changes: what is the same is not laid out anew. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function format(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e5)) return value.toExponential(1);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}
