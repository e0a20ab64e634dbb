// The page: what the server says is shown, what the person does becomes orders.

import { Hand } from "./hand.js";
import { Line } from "./line.js";
import { Curve, Pane, format, write } from "./view.js";

const $ = (id) => document.getElementById(id);
const SCALARS = ["success_probability", "reward", "uncertainty", "image_uncertainty"];
const MOST_THUMBS = 60; // of one episode
const SLIDERS_MS = 80;

let world = null, hand = null, panes = [], truths = [], now = null;
let curves = {}, shownStart = null, sliders = [], sliding = null;
const readings = Object.fromEntries(SCALARS.map((name) => {
  const root = $(`reading-${name}`);
  const bounds = name === "success_probability" ? [0, 1] : undefined;
  return [name, { root, output: root.querySelector("output"), curve: new Curve(root.querySelector("canvas"), bounds) }];
}));
let input = 0, sentAt = new Map(), latencies = [];

const line = new Line(heard, shown, lost);

// ---- what the server says ------------------------------------------------------------------------------

function heard(message) {
  if (message.say === "hello") meet(message);
  else if (message.say === "curves") curves = message.curves;
  else if (message.say === "hand") hand.adopt(message.values);
  else if (message.say === "saves") showSaves(message.saves);
  else if (message.say === "kept") {
    $("retry").hidden = message.level !== "error";
    $("kept").textContent = message.text;
    if (message.level === "error") say(message.text, "error");
  } else if (message.say === "message") say(message.text, message.level);
}

function lost(full) {
  $("pace").textContent = full ? "no place yet" : "the line is lost; trying again";
  $("pace").classList.add("slow");
  setPlaying(false);
}

function meet(hello) {
  const again = world !== null;
  world = hello;
  const name = hello.world.split("/").slice(-2).join("/");
  document.title = `${name} · scd-play`;
  $("world").textContent = name;
  $("world").title = hello.world;
  $("speed").value = String(hello.speed);
  if (again) return;
  hand = new Hand(hello.controls, moved);
  const several = hello.cameras.length > 1;
  panes = hello.cameras.map((name, i) =>
    new Pane($("panes"), "Imagined", several ? name : "", false, hello.views[name] ?? null, i));
  panes.forEach((pane) => steer(pane.picture));
  makeSliders();
  makePointerChoices();
  $("by-policy").textContent = hello.policy ?? "No policy";
  $("by-policy").title = hello.policy ?? "";
  $("by-policy").disabled = !hello.policy;
  $("compare").disabled = !hello.simulator;
  $("compare-label").textContent = hello.simulator ? `Simulator beside it: ${hello.simulator}` : "No simulator beside it";
  $("about-simulator").textContent = hello.simulator ? "" : hello.about_simulator;
  $("task-row").hidden = hello.tasks.length < 2;
  $("task").replaceChildren(...[["", "as recorded"], ...hello.tasks.map((task) => [task, task])].map(option));
  $("kept").textContent = `Goes to ${hello.out}`;
  const told = (name) => (name === "reward" ? hello.reward : hello.scalars.includes(name));
  const why = {
    success_probability: "Its recordings had no success",
    reward: "Its recordings had no reward",
    uncertainty: "This world does not predict it",
    image_uncertainty: "This world does not predict it",
  };
  for (const name of SCALARS) {
    readings[name].root.classList.toggle("absent", !told(name));
    if (!told(name)) readings[name].output.textContent = why[name];
  }
  $("state-card").hidden = hello.state.length === 0;
  $("starts").replaceChildren(...hello.starts.map(({ episode, frames }) => {
    const button = thumb(`/start/${episode}/${frames[0]}/0.png`, `episode ${episode}`);
    button.dataset.episode = episode;
    button.onclick = () => restart(episode, frames[0]);
    return button;
  }));
  fillKeyTable();
}

function shown(header, pictures) {
  const jumped = now === null || header.start.join() !== now.start.join();
  now = header;
  pictures.slice(0, header.cameras).forEach((picture, i) => panes[i].draw(picture));
  showTruth(pictures.slice(header.cameras));
  pictures.forEach((picture) => picture.close());
  if (header.driver === "policy" && header.action) hand.adopt(header.action);
  aim();
  setPlaying(header.playing);
  setDriver(header.driver);
  $("timeline").max = header.last;
  $("timeline").value = header.step;
  write($("clock"), `${(header.step / world.fps).toFixed(1)} s · step ${header.step}`);
  record("reward", header.step ? header.reward : null);
  for (const [name, value] of Object.entries(header.scalars)) record(name, value);
  showReadings();
  showPace();
  showState();
  if (document.activeElement !== $("num_steps")) $("num_steps").value = header.num_steps;
  $("record").checked = header.recording;
  $("compare").checked = header.compares;
  $("keep").disabled = header.kept;
  const success = header.over === "success";
  $("banner").hidden = !header.over;
  $("banner").classList.toggle("success", success);
  $("banner").textContent = success ? "The world predicts success. Rewind, or start again."
    : header.over ? `Over after ${header.over}. Rewind, or start again.` : "";
  if (jumped) showStart();
  measureLatency();
}

function record(name, value) {
  curves[name] ??= [];
  curves[name].length = Math.max(now.last + 1, now.step + 1);
  curves[name][now.step] = value;
}

// ---- pictures and readings -----------------------------------------------------------------------------

function showTruth(pictures) {
  while (truths.length < pictures.length)
    truths.push(new Pane($("panes"), "Simulator", "", true, null));
  truths.forEach((pane, i) => { pane.root.hidden = i >= pictures.length; });
  pictures.forEach((picture, i) => truths[i].draw(picture));
  if (now.truth && truths[0]) {
    const { success, over, reward } = now.truth;
    write(truths[0].note, success ? "success" : over ? "over" : world.reward ? `reward ${format(reward)}` : "");
  }
}

function aim() {
  const values = now.driver === "policy" ? now.action : hand.values;
  panes.forEach((pane) => pane.aim(hand.placeOf(values)));
  sliding ??= setTimeout(showSliders, SLIDERS_MS);
}

/** Sliders follow a little later than the ring: drawing them at every motion of the hand costs more than a frame. */
function showSliders() {
  sliding = null;
  const values = (now.driver === "policy" && now.action) || hand.values;
  hand.controls.forEach((control, d) => {
    const { slider, output } = sliders[d];
    if (slider !== document.activeElement) slider.value = values[d];
    write(output, format(values[d]));
  });
}

function showReadings() {
  const set = (name, text) => {
    const { root, output, curve } = readings[name];
    if (root.classList.contains("absent")) return;
    write(output, text);
    curve.draw(curves[name] ?? [], now.step);
  };
  const percent = (value, digits) => (value === undefined || value === null ? "–" : `${(100 * value).toFixed(digits)} %`);
  set("success_probability", percent(now.scalars.success_probability, 0));
  set("reward", now.step ? format(now.reward) : "–");
  for (const name of ["uncertainty", "image_uncertainty"]) {
    set(name, percent(now.scalars[name], now.scalars[name] < 0.01 ? 2 : 1));
  }
}

function showPace() {
  const pace = $("pace");
  const wanted = world.fps * Number($("speed").value);
  if (!now.playing || !now.rate) {
    pace.textContent = now.playing ? "…" : `paused · ${perSecond(world.fps)} frames/s`;
    pace.classList.remove("slow");
    return;
  }
  const slow = wanted > 0 && now.rate < 0.9 * wanted;
  pace.classList.toggle("slow", slow);
  write(pace, wanted > 0
    ? `${now.rate.toFixed(1)} of ${perSecond(wanted)} frames/s${slow ? ": slow motion, the machine takes longer" : ""}`
    : `${now.rate.toFixed(1)} frames/s (${(now.rate / world.fps).toFixed(1)} × real time)`);
}

function perSecond(rate) { return String(Number(rate.toFixed(2))); }

function showState() {
  if (!$("state-card").open) return;
  if ($("state").rows.length !== world.state.length) {
    $("state").replaceChildren();
    world.state.forEach((name) => {
      const row = $("state").insertRow();
      row.insertCell().textContent = name;
      row.insertCell();
    });
  }
  now.state.forEach((value, i) => { $("state").rows[i].cells[1].textContent = format(value); });
}

/** From the first motion of the hand since the frame before to this frame on the screen. */
function measureLatency() {
  const taken = [...sentAt.keys()].filter((id) => id <= now.input);
  if (!taken.length) return;
  const began = sentAt.get(taken[0]);
  taken.forEach((id) => sentAt.delete(id));
  latencies = [...latencies, performance.now() - began].slice(-15);
  const middle = [...latencies].sort((a, b) => a - b)[Math.floor(latencies.length / 2)];
  write($("latency"), `hand → picture ${middle.toFixed(0)} ms`);
}

// ---- the hand ------------------------------------------------------------------------------------------

function moved(values) {
  if (!now) return;
  if (now.driver === "policy") drive("person");
  input += 1;
  if (now.playing) sentAt.set(input, performance.now());
  else sentAt.clear();
  line.order("act", { values, id: input });
  aim();
}

function steer(picture) {
  const place = (event) => {
    const box = picture.querySelector("canvas").getBoundingClientRect();
    hand.point((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  let pressed = null; // the finger, pen or button that drags; it may leave the picture
  picture.classList.toggle("steers", hand.x >= 0);
  picture.addEventListener("pointerdown", (event) => {
    if (!now || pressed !== null || (hand.x < 0 && hand.y < 0)) return;
    pressed = event.pointerId;
    document.activeElement?.blur();
    place(event);
    if (!now.playing && !now.over) play(true);
    event.preventDefault();
  });
  addEventListener("pointermove", (event) => { if (event.pointerId === pressed) place(event); });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, (event) => {
    if (event.pointerId !== pressed) return;
    pressed = null;
    hand.letGo();
  });
}

function makeSliders() {
  $("sliders").replaceChildren(...world.controls.map((control, d) => {
    const row = document.createElement("label");
    row.id = `slider-${d}`;
    row.className = "slider";
    row.innerHTML = '<span></span><output></output><input type="range" step="any">';
    row.querySelector("span").textContent = control.name;
    if (hand.keysOf(d)) row.querySelector("span").append(Object.assign(document.createElement("kbd"), { textContent: hand.keysOf(d) }));
    const slider = row.querySelector("input");
    sliders[d] = { slider, output: row.querySelector("output") };
    Object.assign(slider, { min: control.low, max: control.high, disabled: control.constant });
    row.title = control.constant ? "It never moved in the recordings: the world takes the recorded value"
      : hand.isPosition(d) ? "A position: it stays where it is put" : "It goes back to rest when it is let go";
    slider.addEventListener("input", () => { hand.set(d, Number(slider.value)); moved(hand.values); });
    slider.addEventListener("change", () => hand.rest(d));
    return row;
  }));
}

function makePointerChoices() {
  const names = [[-1, "nothing"], ...hand.order.map((d) => [d, world.controls[d].name])];
  for (const axis of ["x", "y"]) {
    const select = $(`pointer-${axis}`);
    select.replaceChildren(...names.map(option));
    select.value = String(hand[axis]);
    select.addEventListener("change", () => {
      hand[axis] = Number(select.value);
      panes.forEach((pane) => pane.picture.classList.toggle("steers", hand.x >= 0 || hand.y >= 0));
      if (now) aim();
    });
  }
}

// ---- orders --------------------------------------------------------------------------------------------

const play = (on) => line.order(on ? "play" : "pause");
const drive = (driver) => { now.driver = driver; line.order("drive", { driver }); };
const look = (step) => line.order("look", { step: Math.max(0, Math.min(now.last, Math.round(step))) });
const restart = (episode, frame) => line.order("reset", { episode, frame, task: $("task").value || null });

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => SCALARS.forEach((name) => readings[name].curve.measure()));

const clicks = {
  play: () => play(!now.playing),
  one: () => line.order("step"),
  back: () => look(now.step - world.fps),
  bookmark: () => line.order("save"),
  again: () => restart(null, null),
  "by-person": () => drive("person"),
  "by-policy": () => drive("policy"),
  keep: () => line.order("keep"),
  retry: () => line.order("retry"),
  help: () => $("keys").showModal(),
  theme: switchTheme,
};
for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", () => { if (now || id === "theme") act(); });
$("timeline").addEventListener("input", () => look(Number($("timeline").value)));
$("speed").addEventListener("change", () => line.order("speed", { value: Number($("speed").value) }));
$("num_steps").addEventListener("change", () => line.order("num_steps", { value: Number($("num_steps").value) }));
$("task").addEventListener("change", () => shownStart && restart(...shownStart));
for (const name of ["compare", "record"]) $(name).addEventListener("change", () => line.order(name, { on: $(name).checked }));
$("state-card").addEventListener("toggle", () => now && showState());

const KEYS = {
  Space: ["play", "space", "play, pause"],
  Period: ["one", ".", "one frame"],
  Backspace: ["back", "backspace", "back one second; going on from there cuts off what came after"],
  Enter: ["again", "enter", "start again, at random"],
  KeyB: ["bookmark", "B", "save point"],
  KeyP: [null, "P", "you or the policy"],
  KeyC: [null, "C", "simulator beside it"],
  KeyK: ["keep", "K", "keep this episode"],
};

addEventListener("keydown", (event) => {
  if (!now || event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const moving = event.target.closest("input[type=range]") && /^(Arrow|Page|Home|End)/.test(event.code);
  const typing = moving || event.target.closest("select, input[type=number]");
  const pressing = event.target.closest("button, summary, input") && ["Space", "Enter"].includes(event.code);
  if (typing || pressing) return;
  if (event.key === "?") $("keys").showModal();
  else if (hand.key(event.code, true)) { /* it drives */ }
  else if (event.repeat) return;
  else if (event.code === "KeyP") { if (world.policy) drive(now.driver === "policy" ? "person" : "policy"); }
  else if (event.code === "KeyC") { if (world.simulator) line.order("compare", { on: !now.compares }); }
  else if (KEYS[event.code]) clicks[KEYS[event.code][0]]();
  else return;
  event.preventDefault();
});
// What was chosen is chosen: the keys drive again.
addEventListener("change", (event) => { if (!event.target.matches("[type=number]")) event.target.blur(); });
addEventListener("keyup", (event) => hand?.key(event.code, false));
addEventListener("blur", () => hand?.releaseKeys());
document.addEventListener("visibilitychange", () => { if (document.hidden && now?.playing) play(false); });

function fillKeyTable() {
  const rows = [
    ["picture", hand.x < 0 ? "nothing: choose below the sliders" : "press and drag: the whole picture is the range of two numbers"],
    ...world.controls.flatMap((control, d) => (hand.keysOf(d) ? [[hand.keysOf(d), control.name]] : [])),
    ["gamepad", "the sticks move the first four numbers, the triggers the fifth"],
    ...Object.values(KEYS).map(([, key, what]) => [key, what]),
  ];
  $("key-table").replaceChildren();
  for (const [key, what] of rows) {
    const row = $("key-table").insertRow();
    row.insertCell().append(Object.assign(document.createElement("kbd"), { textContent: key }));
    row.insertCell().textContent = what;
  }
}

// ---- small pieces --------------------------------------------------------------------------------------

function setPlaying(on) {
  if (now) now.playing = on;
  write($("play"), on ? "Pause" : "Play");
  $("play").disabled = Boolean(now?.over);
  $("one").disabled = Boolean(now?.over);
}

function setDriver(driver) {
  $("by-person").setAttribute("aria-pressed", driver === "person");
  $("by-policy").setAttribute("aria-pressed", driver === "policy");
}

function showStart() {
  const [episode, frame] = (shownStart = now.start);
  for (const button of $("starts").children) {
    const here = Number(button.dataset.episode) === episode;
    button.setAttribute("aria-current", here);
    if (here) reveal(button);
  }
  const { frames = [] } = world.starts.find((one) => one.episode === episode) ?? {};
  const each = Math.ceil(frames.length / MOST_THUMBS);
  $("frames").hidden = frames.length < 2;
  $("frames").replaceChildren(...frames.filter((one, i) => i % each === 0 || one === frame).map((one) => {
    const button = thumb(`/start/${episode}/${one}/0.png`, `frame ${one}`);
    button.setAttribute("aria-current", one === frame);
    button.onclick = () => restart(episode, one);
    return button;
  }));
}

/** Scrolls a strip sideways, and never the page. */
function reveal(button) {
  const strip = button.parentElement;
  const left = button.offsetLeft - strip.offsetLeft;
  if (left < strip.scrollLeft || left + button.offsetWidth > strip.scrollLeft + strip.clientWidth)
    strip.scrollLeft = left - strip.clientWidth / 2;
}

function showSaves(saves) {
  $("saves-strip").hidden = saves.length === 0;
  $("saves").replaceChildren(...saves.map(({ name, step, picture }) => {
    const button = thumb(picture, `${name} · ${(step / world.fps).toFixed(1)} s`);
    button.onclick = () => line.order("load", { name });
    return button;
  }));
}

function thumb(source, text) {
  const button = document.createElement("button");
  button.append(Object.assign(document.createElement("img"), { src: source, alt: "", loading: "lazy" }), text);
  return button;
}

function option([value, text]) {
  return Object.assign(document.createElement("option"), { value, textContent: text });
}

function say(text, level = "info") {
  const box = document.createElement("div");
  box.className = `message ${level}`;
  const close = Object.assign(document.createElement("button"), { className: "quiet", textContent: "Close" });
  close.onclick = () => box.remove();
  box.append(Object.assign(document.createElement("span"), { textContent: text }), close);
  $("messages").append(box);
  while ($("messages").children.length > 3) $("messages").firstChild.remove();
  setTimeout(() => box.remove(), level === "error" ? 15000 : 6000);
}

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  SCALARS.forEach((name) => readings[name].curve.measure());
}
