// The stage: buttons, seek bar, meters and messages around the player's canvas, and its ties to the timeline.
const player = window.EARPlayer;
const place = element.querySelector(".ear-place"), root = element.querySelector(".ear-stage");
const find = (selector) => root.querySelector(selector);
const play = find("[data-do=play]"), stop = find("[data-do=stop]"), again = find("[data-do=again]"), now = find("[data-do=now]");
const seek = find(".ear-seek"), time = find(".ear-time"), status = find(".ear-status");
const meter = (name, text) => { const cell = find(`[data-meter=${name}]`); if (cell.textContent !== text) cell.textContent = text; };
const timeline = () => (window.EARTimeline ? window.EARTimeline.get("timeline") : null);
const FPS = 25;
player.mount(find("canvas"));

const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
const say = (text, mood) => { if (status.textContent !== text) status.textContent = text; status.dataset.mood = mood || ""; };
const labelOf = (track) => document.querySelector(`#steer [data-track="${track}"] label`)?.textContent || track;
const running = () => ["starting", "queued", "streaming"].includes(player.take.state);

watch("value", () => {
  const ticket = props.value;
  if (!ticket || !ticket.token || ticket.token === root.dataset.take) return;
  root.dataset.take = ticket.token;
  player.load({ ...ticket, clicked: window.EARClicked });
});

player.on("state", (take) => {
  const entered = root.dataset.state !== take.state; // a stall comes as the same state again, and must not wipe a message
  root.dataset.state = take.state;
  const live = running();
  stop.disabled = !live;
  again.disabled = take.state === "idle" || take.state === "starting";
  play.disabled = !take.frames.length && !live;
  seek.disabled = !take.total;
  if (take.state === "starting") { comeIntoView(); timeline()?.clearApplied(); say("Waking the portrait up …"); for (const name of ["first", "painted", "fps", "rtf", "stalls", "misses", "steer", "print"]) meter(name, "–"); linkTo(null); }
  else if (take.state === "queued") say(take.waiting);
  else if (take.state === "streaming") { seek.max = take.total - 1; if (entered) say("Streaming. Move any control: it acts from the next frame on."); }
  else if (take.state === "stopped") { say(`Stopped at ${clock(take.frames.length / FPS)}.${take.video ? " The mp4 holds what was made until then." : ""}`); linkTo(take.video); }
  else if (take.state === "failed") say(take.message, "bad");
  else if (take.state === "done") linkTo(take.video);
});

player.on("writing", ({ written, total }) => say(`Writing the mp4 … ${Math.floor((100 * written) / Math.max(total, 1))} %`));

player.on("done", (take) => {
  if (take.controls && timeline()) timeline().setControls(take.controls);
  meter("print", (take.fingerprint || "–").slice(0, 12));
  if (take.state === "done") say(`Done: ${(take.total / FPS).toFixed(2)} s, ${take.total} frames. Press Generate again to replay it exactly.`, "good");
});

// On a narrow window the stage lies below what was clicked.
function comeIntoView() {
  const box = find(".ear-screen").getBoundingClientRect();
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (box.top > innerHeight * 0.6 || box.bottom < innerHeight * 0.3) find(".ear-screen").scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
}

function linkTo(video) {
  const link = find("[data-get=video]");
  if (video) { link.href = video; link.removeAttribute("aria-disabled"); link.tabIndex = 0; }
  else { link.removeAttribute("href"); link.setAttribute("aria-disabled", "true"); }
}

player.on("stats", (take) => {
  if (take.firstPaint !== null && take.firstPaint !== undefined) meter("first", `${Math.round(take.firstPaint)} ms`);
  const stats = take.stats;
  if (!stats) return;
  meter("fps", stats.fps ? `${stats.fps.toFixed(0)} fps` : "–");
  meter("rtf", stats.rtf ? stats.rtf.toFixed(2) : "–");
  meter("stalls", `${take.stalls}`);
  meter("misses", `${stats.misses} of ${stats.frames}`);
  meter("memory", `${stats.memory_mb.toFixed(0)} MB`);
  const painted = player.paintedFps();
  if (painted) meter("painted", `${painted.toFixed(1)} fps`);
});
player.on("buffering", (words) => { say(words); now.hidden = false; });
player.on("held", () => { say("The sound waits while you steer."); now.hidden = true; });
player.on("parked", () => say("Others are being served while you pause. Press Play to go on: it may be your turn a little later."));
player.on("dropped", (frame) => timeline()?.clearApplied(frame));
player.on("visible", ({ ms }) => meter("steer", `${Math.round(ms)} ms`));
player.on("refused", ({ message }) => say(message, "bad"));

player.on("frame", (frame) => { const t = timeline(); if (t) t.setApplied(frame.index, frame.applied); });
player.on("applied", ({ frame, tracks }) => {
  const t = timeline();
  for (const [track, value] of Object.entries(tracks)) if (t) t.recordKeyframe(track, frame, value, { latch: true });
  root.dataset.appliedFrame = frame;
  const names = Object.entries(tracks).map(([track, value]) => `${labelOf(track)} ${value === null ? "back to the model" : Array.isArray(value) ? `${value[0]} ${Math.round(100 * value[1])} %` : Math.round(100 * value) / 100}`);
  say(`${names.join(", ")}: in force from frame ${frame} (${clock(frame / FPS)}).`, "good");
});

document.addEventListener("click", (event) => { if (event.target.closest("#generate, .ear-example")) window.EARClicked = performance.now(); }, { capture: true });

let dragging = false;
player.on("shown", (index) => {
  const take = player.take;
  root.classList.add("has-picture");
  if (!dragging) seek.value = index;
  const total = Math.max(take.total, 1);
  seek.style.setProperty("--played", `${100 * index / Math.max(total - 1, 1)}%`);
  seek.style.setProperty("--made", `${100 * Math.min((take.frames.length - 1) / Math.max(total - 1, 1), 1)}%`);
  seek.setAttribute("aria-valuetext", `${(index / FPS).toFixed(1)} seconds`);
  time.textContent = `${clock(index / FPS)} / ${clock(total / FPS)}`;
  const t = timeline(); if (t) t.setPlayhead(index);
});
const chip = find(".ear-live");
let flows = false;
function face() {
  root.classList.toggle("is-playing", player.playing);
  play.setAttribute("aria-label", player.playing ? "Pause" : "Play");
  chip.classList.toggle("is-behind", !flows);
  chip.textContent = flows ? "live" : player.playing ? "catching up" : "paused";
  if (flows || !player.playing || !running()) now.hidden = true; // nobody waits
}
for (const name of ["state", "played"]) player.on(name, face);
player.on("playing", (flowing) => { flows = flowing; face(); });

play.addEventListener("click", () => { if (player.playing) player.pause(); else player.play(); face(); });
stop.addEventListener("click", () => player.stop());
now.addEventListener("click", () => { player.playNow(); play.focus(); face(); }); // it goes, and the focus must not go with it
again.addEventListener("click", () => document.querySelector("#generate")?.click());
seek.addEventListener("input", () => { dragging = true; player.seek(Number(seek.value)); });
seek.addEventListener("change", () => { dragging = false; });
find(".ear-volume").addEventListener("input", (event) => player.setVolume(Number(event.target.value)));

const joinTimeline = setInterval(() => { // components load in any order
  if (!timeline()) return;
  clearInterval(joinTimeline);
  timeline().onEdit(({ tracks }) => player.plan({ fps: FPS, tracks }));
  timeline().onSeek(({ frame }) => { if (player.take.frames.length) player.seek(frame); });
}, 50);
let resume = false;
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { resume = player.playing; player.pause(); } else if (resume) player.play();
  face();
});

// While no take runs, the stage shows the portrait as it is cropped, or as it is steered.
function still(paint) {
  if (running()) return;
  const canvas = find("canvas");
  canvas.width = canvas.height = 256;
  paint(canvas.getContext("2d"), 256);
  root.classList.add("has-picture");
}
document.addEventListener("portrait:crop", (event) => {
  still(event.detail.paint);
  if (!running()) say("This is what will speak. Press Generate.");
});
document.addEventListener("portrait:still", (event) => {
  still((context, size) => context.drawImage(event.detail.image, 0, 0, size, size));
  if (!running()) say(`${event.detail.words}: so it will look. Press Generate to hear it speak.`);
});
document.addEventListener("portrait:gone", () => {
  if (running()) return;
  root.classList.remove("has-picture");
  say("Choose a portrait and a voice, or click an example.");
});

// A message of the page is said here, too, and goes when it goes there.
let told = "";
document.addEventListener("page:message", (event) => {
  const { text, mood } = event.detail;
  if (text) say(text, mood);
  else if (told && status.textContent === told) say(running() ? "" : "Ready.");
  told = text;
});

// While the timeline is on the screen and the stage is not, the stage follows along the top, small.
const inView = { screen: true, timeline: false };
function followAlong() {
  const small = inView.timeline && !inView.screen;
  if (small === root.classList.contains("is-small")) return;
  place.style.height = small ? `${place.offsetHeight}px` : ""; // nothing below may jump
  root.classList.toggle("is-small", small);
}
new IntersectionObserver((entries) => { inView.screen = entries.at(-1).intersectionRatio >= 0.5; followAlong(); }, { threshold: [0, 0.5] }).observe(place.querySelector(".ear-room"));
const findTimeline = setInterval(() => {
  const lanes = document.querySelector("#timeline");
  if (!lanes) return;
  clearInterval(findTimeline);
  new IntersectionObserver((entries) => { inView.timeline = entries.at(-1).isIntersecting; followAlong(); }, { rootMargin: "-190px 0px -90px 0px" }).observe(lanes);
}, 50);
