// Steering: sliders and an emotion pad that act on the running take from the next frame on.
// While nothing runs they set a keyframe where the playhead stands, and the stage shows at once what it does.
const player = window.EARPlayer;
const root = element.querySelector(".ear-steer");
const rows = [...root.querySelectorAll("[data-track]")];
const pad = root.querySelector(".ear-pad"), knob = root.querySelector(".ear-knob"), feeling = root.querySelector(".ear-feeling");
const FEELINGS = JSON.parse(root.dataset.emotions);
const timeline = () => (window.EARTimeline ? window.EARTimeline.get("timeline") : null);

let queued = null, queuedAt = 0;
const quiet = {}; // track -> until when the picture has no say, because a change is on its way
function send(track, value) {
  quiet[track] = performance.now() + 400;
  if (player.take.state !== "streaming") { preview(); return; }
  if (!queued) { queued = {}; queuedAt = performance.now(); requestAnimationFrame(flush); }
  queued[track] = value;
}
function flush() {
  const tracks = queued, asked = queuedAt;
  queued = null;
  player.set(tracks, asked);
}
// A keyframe by hand, when no take runs to record the change. At the end of a take, where nothing follows that it could
// act on, it is for the next take from its start.
function keep(track, value) {
  if (player.take.state === "streaming" || !timeline()) return;
  const { playhead, duration } = timeline().state();
  timeline().recordKeyframe(track, playhead >= Math.ceil(duration * 25 - 1e-6) - 1 ? 0 : playhead, value);
}

// What the portrait looks like under the controls as they stand here; the server draws it.
const PREVIEW_MS = 150; // after the last change
let previewing = 0, previewed = 0;
const idle = () => player.take.state !== "starting" && player.take.state !== "streaming" && !player.playing;
function preview() {
  clearTimeout(previewing);
  previewing = setTimeout(() => { if (idle()) trigger("input", { tracks: asked(), number: ++previewed }); }, PREVIEW_MS);
}
function asked() {
  const values = rows.map((row) => [row.dataset.track, row.shown]);
  return Object.fromEntries([...values, ["emotion", emotion]].filter(([, value]) => value !== null && value !== undefined).map(([track, value]) => [track, [[0, value]]]));
}
const inWords = () => {
  const changed = rows.filter((row) => row.shown !== null).map((row) => `${row.querySelector("label").textContent} ${row.querySelector("output").textContent}`);
  return [...changed, ...(emotion ? [feeling.textContent] : [])].join(", ") || "All left to the model";
};
watch("value", () => {
  const still = props.value;
  if (!still || still.number !== previewed || !idle()) return;
  const image = new Image();
  image.onload = () => { if (idle() && still.number === previewed) document.dispatchEvent(new CustomEvent("portrait:still", { detail: { image, words: inWords() } })); };
  image.src = still.url;
});

const written = (row, value) => `${Number(value) > 0 && Number(row.dataset.low) < 0 ? "+" : ""}${Number(value)}${row.dataset.unit}`;
function showRow(row, value) {
  if (row.shown === value && (value === null || Number(row.querySelector("input").value) === value)) return; // every repaint costs the picture time
  row.shown = value;
  const slider = row.querySelector("input"), number = row.querySelector("output"), button = row.querySelector("button");
  row.classList.toggle("is-auto", value === null);
  if (value !== null) slider.value = value; else slider.value = row.dataset.neutral;
  const low = Number(slider.min), high = Number(slider.max), zero = 100 * (Number(row.dataset.neutral) - low) / (high - low);
  const here = 100 * (Number(slider.value) - low) / (high - low);
  row.style.setProperty("--from", `${Math.min(zero, here)}%`);
  row.style.setProperty("--to", `${Math.max(zero, here)}%`);
  number.textContent = value === null ? "auto" : written(row, Math.round(value * 100) / 100);
  button.disabled = value === null;
}
for (const row of rows) {
  const track = row.dataset.track, slider = row.querySelector("input"), button = row.querySelector("button");
  showRow(row, null);
  slider.addEventListener("input", () => { row.dataset.held = "1"; showRow(row, Number(slider.value)); send(track, Number(slider.value)); });
  slider.addEventListener("change", () => { delete row.dataset.held; keep(track, Number(slider.value)); });
  button.addEventListener("click", () => { showRow(row, null); send(track, null); keep(track, null); slider.focus(); });
}

// The pad: direction is the feeling, distance from the middle its strength.
let emotion; // not shown yet
const ANGLE = (i) => (2 * Math.PI * i) / FEELINGS.length - Math.PI / 2;
function showEmotion(value) {
  if (emotion !== undefined && String(emotion) === String(value)) return;
  emotion = value;
  pad.classList.toggle("is-auto", value === null);
  root.querySelector(".ear-pad-release").disabled = value === null;
  const index = value ? FEELINGS.indexOf(value[0]) : -1;
  const reach = value && index >= 0 ? value[1] : 0;
  const angle = index >= 0 ? ANGLE(index) : 0;
  knob.style.left = `${50 + 30 * reach * Math.cos(angle)}%`;
  knob.style.top = `${50 + 30 * reach * Math.sin(angle)}%`;
  const words = value === null ? "auto" : index < 0 ? "neutral" : `${value[0]} ${Math.round(100 * value[1])} %`;
  feeling.textContent = words;
  pad.setAttribute("aria-valuetext", words);
  pad.setAttribute("aria-valuenow", Math.round(100 * reach));
  for (const label of pad.querySelectorAll("[data-feeling]")) label.classList.toggle("is-on", index >= 0 && label.dataset.feeling === value[0]);
}
function fromPoint(event) {
  const box = pad.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width - 0.5, y = (event.clientY - box.top) / box.height - 0.5;
  const reach = Math.min(Math.hypot(x, y) / 0.3, 1);
  if (reach < 0.18) return ["neutral", 1];
  const turn = (Math.atan2(y, x) + Math.PI / 2 + 2 * Math.PI) % (2 * Math.PI);
  const index = Math.round(turn / (2 * Math.PI) * FEELINGS.length) % FEELINGS.length;
  return [FEELINGS[index], Math.round(reach * 20) / 20];
}
function feel(value) { showEmotion(value); send("emotion", value); }
pad.addEventListener("pointerdown", (event) => { pad.setPointerCapture(event.pointerId); pad.dataset.held = "1"; feel(fromPoint(event)); event.preventDefault(); pad.focus(); });
pad.addEventListener("pointermove", (event) => { if (pad.dataset.held) feel(fromPoint(event)); });
for (const name of ["pointerup", "pointercancel"]) pad.addEventListener(name, () => { if (pad.dataset.held) { delete pad.dataset.held; keep("emotion", emotion); } });
pad.addEventListener("keydown", (event) => {
  const index = emotion ? FEELINGS.indexOf(emotion[0]) : -1, strength = emotion && index >= 0 ? emotion[1] : 0;
  let next = null;
  if (event.key === "ArrowRight" || event.key === "ArrowLeft") { const step = event.key === "ArrowRight" ? 1 : -1; next = [FEELINGS[index < 0 ? 0 : (index + step + FEELINGS.length) % FEELINGS.length], strength || 0.5]; }
  else if (event.key === "ArrowUp") next = [FEELINGS[Math.max(index, 0)], Math.min(1, Math.round((strength + 0.05) * 20) / 20)];
  else if (event.key === "ArrowDown") next = strength > 0.05 ? [FEELINGS[Math.max(index, 0)], Math.round((strength - 0.05) * 20) / 20] : ["neutral", 1];
  else if (event.key === "Escape" || event.key === "Delete") { feel(null); keep("emotion", null); event.preventDefault(); return; }
  else return;
  event.preventDefault();
  feel(next); keep("emotion", next);
});
root.querySelector(".ear-pad-release").addEventListener("click", () => { feel(null); keep("emotion", null); });
root.querySelector(".ear-release-all").addEventListener("click", () => {
  for (const row of rows) { if (!row.classList.contains("is-auto")) { showRow(row, null); send(row.dataset.track, null); keep(row.dataset.track, null); } }
  if (emotion !== null) { feel(null); keep("emotion", null); }
});
showEmotion(null);

function showAll(values) {
  for (const row of rows) if (!row.dataset.held && !(quiet[row.dataset.track] > performance.now())) showRow(row, values[row.dataset.track] ?? null);
  if (!pad.dataset.held && !(quiet.emotion > performance.now())) showEmotion(values.emotion ?? null);
}
// The timeline was edited by hand, or its playhead moved, while there is no take to show it.
const joinTimeline = setInterval(() => { // components load in any order
  if (!timeline()) return;
  clearInterval(joinTimeline);
  const follow = () => { if (idle() && timeline()) { showAll(timeline().valuesAt(timeline().state().playhead)); preview(); } };
  timeline().onEdit(follow);
  timeline().onSeek(() => { if (!player.take.frames.length) follow(); });
}, 50);

// What is in force in the picture on the screen shows on every control that is not being held.
player.on("shown", (index) => {
  const frame = player.take.frames[index];
  if (!frame) return;
  const latest = player.take.frames[player.take.frames.length - 1];
  const current = player.take.state === "streaming" ? latest.applied : frame.applied;
  showAll(current);
});
