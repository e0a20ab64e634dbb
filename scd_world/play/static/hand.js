// The person's hand: pointer, keys, gamepad and sliders become one action. What is a position stays where it was
// put; what is not (a speed, a torque) goes back to rest when it is let go.

const PAIRS = [ // keys that lower and raise a number of the action, by their place on the keyboard
  ["ArrowLeft", "ArrowRight", "← →"], ["ArrowDown", "ArrowUp", "↓ ↑"], ["KeyA", "KeyD", "A D"],
  ["KeyS", "KeyW", "S W"], ["KeyQ", "KeyE", "Q E"], ["KeyF", "KeyR", "F R"], ["KeyG", "KeyT", "G T"],
  ["KeyH", "KeyY", "H Y"], ["KeyJ", "KeyU", "J U"], ["KeyL", "KeyO", "L O"],
];
const ACROSS_MS = 1500; // a key moves a position from one end of its range to the other
const DEAD = 0.12; // of a gamepad's stick
const STICKS = [[0, 1], [1, -1], [2, 1], [3, -1]]; // axis and direction, for the first four numbers

export class Hand {
  /** controls: as controls.py gives them. moved: called with the action when the person changes it. */
  constructor(controls, moved) {
    this.controls = controls;
    this.moved = moved;
    this.values = controls.map((control) => control.rest);
    this.held = new Set(); // keys
    this.pad = false; // a stick is off its middle
    const drivable = controls.map((control, d) => (control.constant ? -1 : d)).filter((d) => d >= 0);
    this.order = drivable; // number of the action that each pair of keys moves
    this.x = drivable[0] ?? -1;
    this.y = drivable.length > 1 ? drivable[1] : -1;
    this.before = performance.now();
    requestAnimationFrame((now) => this.tick(now));
  }

  isPosition(d) { return this.controls[d].follower !== null; }

  /** A picture's y grows downward, as positions in it do; all else grows upward. */
  upward(d) { return !this.isPosition(d); }

  keysOf(d) { return PAIRS[this.order.indexOf(d)]?.[2] ?? ""; }

  adopt(values) { this.values = [...values]; }

  set(d, value) {
    const { low, high } = this.controls[d];
    this.values[d] = Math.min(high, Math.max(low, value));
  }

  // ---- pointer: the whole picture is the range of two numbers ------------------------------------------

  point(u, v) { // shares of the picture, from its upper left corner
    for (const [d, share] of [[this.x, u], [this.y, v]]) {
      if (d < 0) continue;
      const { low, high } = this.controls[d];
      const along = d === this.y && this.upward(d) ? 1 - share : share;
      this.set(d, low + along * (high - low));
    }
    this.moved(this.values);
  }

  letGo() {
    for (const d of [this.x, this.y]) if (d >= 0 && !this.isPosition(d)) this.values[d] = this.controls[d].rest;
    this.moved(this.values);
  }

  /** Where an action lies in the picture, as shares; null along an axis that is not mapped. */
  placeOf(values) {
    const share = (d, flip) => {
      if (d < 0 || !values) return null;
      const { low, high } = this.controls[d];
      const along = (values[d] - low) / (high - low || 1);
      return flip ? 1 - along : along;
    };
    return [share(this.x, false), share(this.y, this.y >= 0 && this.upward(this.y))];
  }

  // ---- keys and gamepad --------------------------------------------------------------------------------

  /** Says whether a key drives. */
  key(code, down) {
    const pair = PAIRS.findIndex((keys) => keys[0] === code || keys[1] === code);
    if (pair < 0 || this.order[pair] === undefined) return false;
    if (down) this.held.add(code);
    else if (this.held.delete(code)) this.rest(this.order[pair]);
    return true;
  }

  rest(d) {
    if (this.isPosition(d)) return;
    this.values[d] = this.controls[d].rest;
    this.moved(this.values);
  }

  releaseKeys() {
    const held = [...this.held];
    this.held.clear();
    held.forEach((code) => this.rest(this.order[PAIRS.findIndex((keys) => keys.includes(code))]));
  }

  tick(now) {
    const passed = Math.min(100, now - this.before);
    this.before = now;
    const push = new Map(); // number of the action → -1 … 1
    for (const [i, keys] of PAIRS.entries()) {
      const d = this.order[i];
      if (d === undefined) continue;
      const down = this.held.has(keys[0]) ? -1 : 0, up = this.held.has(keys[1]) ? 1 : 0;
      if (!down && !up) continue;
      const flip = d === this.y && this.isPosition(d) && keys[0].startsWith("Arrow") ? -1 : 1; // ↑ is up on the screen
      push.set(d, flip * (down + up));
    }
    const pad = this.readPad();
    pad.forEach((value, d) => push.set(d, value));
    for (const [d, amount] of push) {
      const { low, high, rest } = this.controls[d];
      if (this.isPosition(d)) this.set(d, this.values[d] + amount * (high - low) * passed / ACROSS_MS);
      else this.set(d, rest + amount * (amount > 0 ? high - rest : rest - low));
    }
    if (this.pad && !pad.size) this.order.slice(0, STICKS.length).forEach((d) => this.rest(d));
    this.pad = pad.size > 0;
    if (push.size) this.moved(this.values);
    requestAnimationFrame((later) => this.tick(later));
  }

  readPad() {
    const pad = [...(navigator.getGamepads?.() ?? [])].find((one) => one?.connected);
    const found = new Map();
    if (!pad) return found;
    STICKS.forEach(([axis, sign], i) => {
      const d = this.order[i], value = pad.axes[axis] ?? 0;
      if (d === undefined || Math.abs(value) < DEAD) return;
      const flip = d === this.y && this.isPosition(d) ? -1 : 1; // a stick pushed up moves up on the screen
      found.set(d, sign * flip * value);
    });
    const triggers = (pad.buttons[7]?.value ?? 0) - (pad.buttons[6]?.value ?? 0);
    if (this.order[4] !== undefined && Math.abs(triggers) > DEAD) found.set(this.order[4], triggers);
    return found;
  }
}
