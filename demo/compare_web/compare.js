// Two videos, one clock. The longer one leads; the other is kept within a frame of it, by its speed where it is near and by
// a seek where it is not. Given by Gradio: element, trigger, props, watch.
const FRAME = 0.04;
const root = element.querySelector("[data-ear-compare]");
const part = (name) => root.querySelector(`[data-cmp="${name}"]`);
const sides = [...root.querySelectorAll("[data-side]")].map((node) => ({
  node,
  video: node.querySelector("video"),
  select: node.querySelector("select"),
  file: node.querySelector('input[type="file"]'),
  local: null, // {label, url} of a file that the user opened
  chosen: "",
}));
let playing = false;
let stalled = false;
let ticking = 0;
let drift = 0;

const ready = () => sides.filter(({ video }) => video.readyState > 0 && Number.isFinite(video.duration));
const longest = () => ready().reduce((best, side) => (!best || side.video.duration > best.video.duration + 0.01 ? side : best), null);
const total = () => (longest() ? longest().video.duration : 0);
const speed = () => Number(part("speed").value);

function say(text, bad = false) {
  part("status").textContent = text;
  part("status").classList.toggle("cmp-bad", bad);
}

function fillChoices() {
  const takes = (props.value && props.value.takes) || [];
  for (const side of sides) {
    const options = [["", takes.length ? "Choose a take" : "No takes yet: make one under Create"], ...takes.map((take) => [take.id, take.label])];
    if (side.local) options.push(["local", side.local.label]);
    side.select.replaceChildren(...options.map(([value, label]) => new Option(label, value)));
    if (!options.some(([value]) => value === side.chosen)) side.chosen = "";
    side.select.value = side.chosen;
  }
  // The newcomer sees the last two takes without having to choose.
  sides.forEach((side, index) => {
    if (!side.chosen && !side.touched && takes[index]) choose(side, takes[index].id);
  });
}

function choose(side, id) {
  const takes = (props.value && props.value.takes) || [];
  const take = id === "local" ? side.local : takes.find((item) => item.id === id);
  pause();
  side.chosen = take ? id : "";
  side.select.value = side.chosen;
  side.node.classList.toggle("cmp-has", Boolean(take));
  if (take) side.video.src = take.url;
  else side.video.removeAttribute("src");
  side.video.load();
  say("");
  controls();
}

// Both pictures in one place, for a wipe or their difference.
function look(view) {
  root.dataset.view = view;
  for (const button of root.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === view));
}

function controls() {
  sides.forEach((side, index) => (part(index ? "name-b" : "name-a").textContent = side.chosen ? `${"AB"[index]} ${side.select.selectedOptions[0].text}` : ""));
  const some = ready().length > 0;
  for (const name of ["play", "seek", "back", "next"]) part(name).disabled = !some;
  part("seek").max = Math.max(FRAME, total());
  sides.forEach((side, index) => (side.video.muted = part("sound").value !== String(index)));
  clock();
}

function clock() {
  const leader = longest();
  const now = leader ? leader.video.currentTime : 0;
  part("clock").textContent = `${now.toFixed(2)} / ${total().toFixed(2)} s`;
  if (document.activeElement !== part("seek") || playing) part("seek").value = now;
  part("seek").setAttribute("aria-valuetext", `${now.toFixed(2)} seconds`);
}

const within = (video, time) => Math.min(time, Math.max(0, video.duration - 0.001));

function seek(time) {
  const to = Math.min(Math.max(0, time), total());
  for (const { video } of ready()) video.currentTime = within(video, to);
  clock();
}

async function play() {
  const leader = longest();
  if (!leader) return;
  if (leader.video.currentTime >= total() - FRAME / 2) seek(0);
  else seek(leader.video.currentTime);
  playing = true;
  show();
  try {
    await Promise.all(ready().filter(({ video }) => video.currentTime < video.duration - FRAME).map(({ video }) => video.play()));
  } catch (error) {
    if (error.name !== "AbortError") {
      pause();
      say(`The browser will not play this video: ${error.message}`, true);
    }
    return;
  }
  cancelAnimationFrame(ticking);
  ticking = requestAnimationFrame(tick);
}

function pause() {
  playing = false;
  stalled = false;
  for (const { video } of sides) video.pause();
  cancelAnimationFrame(ticking);
  show();
  clock();
}

function show() {
  part("play").classList.toggle("cmp-on", playing);
  part("play").setAttribute("aria-label", playing ? "Pause both" : "Play both");
}

function tick() {
  if (!playing) return;
  if (!root.isConnected) return pause();
  const leader = longest();
  for (const side of ready()) {
    if (side === leader || side.video.ended) continue;
    drift = side.video.currentTime - within(side.video, leader.video.currentTime);
    if (Math.abs(drift) > 0.3) side.video.currentTime = within(side.video, leader.video.currentTime + 0.05);
    else side.video.playbackRate = speed() * (Math.abs(drift) > 0.01 ? 1 - Math.min(Math.max(drift, -0.12), 0.12) : 1);
  }
  leader.video.playbackRate = speed();
  // When one has to wait for data, so does the other.
  const waiting = ready().some(({ video }) => !video.ended && video.readyState < 3);
  if (waiting !== stalled) {
    stalled = waiting;
    for (const { video } of ready()) {
      if (waiting && video.readyState >= 3) video.pause();
      if (!waiting && video.paused && !video.ended) video.play().catch(() => {});
    }
  }
  clock();
  if (leader.video.ended) {
    pause();
    if (part("loop").checked) {
      seek(0);
      play();
    }
    return undefined;
  }
  ticking = requestAnimationFrame(tick);
  return undefined;
}

function step(frames) {
  const leader = longest();
  if (!leader) return;
  pause();
  seek((Math.round(leader.video.currentTime / FRAME) + frames) * FRAME + 0.001);
}

sides.forEach((side, index) => {
  side.select.addEventListener("change", () => {
    side.touched = true;
    choose(side, side.select.value);
  });
  side.node.querySelector('[data-cmp="open"]').addEventListener("click", () => side.file.click());
  side.file.addEventListener("change", () => {
    const file = side.file.files[0];
    side.file.value = "";
    if (!file) return;
    if (side.local) URL.revokeObjectURL(side.local.url);
    side.local = { label: file.name, url: URL.createObjectURL(file) };
    side.touched = true;
    side.chosen = "local";
    fillChoices();
    choose(side, "local");
  });
  side.video.addEventListener("loadedmetadata", () => {
    controls();
    if (!playing) seek(0);
  });
  side.video.addEventListener("seeked", clock);
  side.video.addEventListener("error", () => {
    if (!side.chosen) return;
    say(`Video ${"AB"[index]} cannot be played: ${side.chosen === "local" ? side.local.label : "the take is gone"}`, true);
    side.node.classList.remove("cmp-has");
    controls();
  });
});
for (const button of root.querySelectorAll("[data-view]")) button.addEventListener("click", () => look(button.dataset.view));
part("wipe").addEventListener("input", () => root.style.setProperty("--cmp-edge", `${part("wipe").value}%`));
look("pair");
part("play").addEventListener("click", () => (playing ? pause() : play()));
part("seek").addEventListener("input", () => {
  if (playing) pause();
  seek(Number(part("seek").value));
});
part("back").addEventListener("click", () => step(-1));
part("next").addEventListener("click", () => step(1));
part("sound").addEventListener("change", controls);
root.addEventListener("keydown", (event) => {
  if (event.target.matches("select, button, input[type=checkbox]")) return;
  if (event.key !== " " && event.key !== "k") return;
  event.preventDefault();
  if (playing) pause();
  else play();
});

// Whenever the tab is shown, the list of takes is fetched again.
new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) trigger("refresh");
  else if (playing) pause();
}).observe(root);
watch("value", fillChoices);
fillChoices();
controls();
(window.EARCompare ??= new Map()).set(COMPARE_ID, {
  play, pause, seek, state: () => ({ times: sides.map(({ video }) => video.currentTime), drift, playing, muted: sides.map(({ video }) => video.muted) }),
});
