// Live: the microphone goes to the server as it is, 40 ms at a time, and pictures come back and are shown at once.
const root = element.querySelector(".ear-talk");
const find = (selector) => root.querySelector(selector);
const canvas = find("canvas"), context = canvas.getContext("2d");
const status = find(".ear-status"), result = find(".ear-result"), level = find(".ear-level"), delay = find(".ear-delay");
const stop = find("[data-do=stop]"), record = find("[data-do=record]");
const rows = [...root.querySelectorAll("[data-track]")];

// The audio thread's side: pieces of 40 ms as 16-bit samples.
const WORKLET = `registerProcessor("ear-microphone", class extends AudioWorkletProcessor {
  constructor() { super(); this.piece = new Int16Array(Math.round(sampleRate / 25)); this.filled = 0; }
  process([input]) {
    const sound = input[0];
    if (sound) for (const value of sound) {
      this.piece[this.filled++] = Math.max(-1, Math.min(1, value)) * 32767;
      if (this.filled === this.piece.length) { this.port.postMessage(this.piece.slice().buffer); this.filled = 0; }
    }
    return true;
  }
});`;

let talk = null; // { socket, audio, stream } while one runs

function say(words, mood = "") { status.textContent = words; status.dataset.mood = mood; }

function address(path, socket) {
  const url = new URL(path, ((window.gradio_config && window.gradio_config.root) || location.origin).replace(/\/?$/, "/"));
  url.protocol = socket ? (location.protocol === "https:" ? "wss:" : "ws:") : location.protocol;
  return url.href;
}

async function begin(ticket) {
  end();
  result.hidden = true;
  say("Waiting for the microphone …");
  const mine = (talk = { ticket });
  try {
    if (!navigator.mediaDevices) throw new Error("a microphone needs a secure page (https, or this very computer)");
    mine.stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true } });
    mine.audio = new AudioContext({ latencyHint: "interactive" });
    await mine.audio.audioWorklet.addModule(URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" })));
  } catch (error) {
    if (talk === mine) { end(); say(`No microphone: ${error.message}.`, "bad"); }
    return;
  }
  if (talk !== mine) { release(mine); return; }
  mine.socket = new WebSocket(address(`${ticket.url}/talk`, true));
  mine.socket.binaryType = "arraybuffer";
  mine.socket.onopen = () => connect(mine);
  mine.socket.onmessage = (event) => { if (talk === mine) (typeof event.data === "string" ? hear(JSON.parse(event.data)) : show(event.data)); };
  mine.socket.onclose = () => { if (talk === mine) { end(); say("The talk has ended.", ""); } };
}

function connect(mine) {
  mine.socket.send(JSON.stringify({ type: "microphone", rate: mine.audio.sampleRate }));
  const node = new AudioWorkletNode(mine.audio, "ear-microphone");
  node.port.onmessage = (event) => {
    if (mine.socket.readyState === WebSocket.OPEN && mine.socket.bufferedAmount < 200000) mine.socket.send(event.data);
    const sound = new Int16Array(event.data);
    let power = 0;
    for (const value of sound) power += value * value;
    level.value = Math.min(1, 4 * Math.sqrt(power / sound.length) / 32767);
  };
  mine.audio.createMediaStreamSource(mine.stream).connect(node);
  node.connect(mine.audio.destination); // it gives no sound; some browsers run only what is connected
  mine.audio.resume();
  root.dataset.state = "streaming";
  stop.disabled = record.disabled = false;
  say("Speak. The sliders act at once.");
  for (const row of rows) steer(row, true);
}

function release(old) {
  if (old.socket) old.socket.close();
  if (old.stream) for (const track of old.stream.getTracks()) track.stop();
  if (old.audio) old.audio.close();
}

function end() {
  const old = talk;
  talk = null;
  if (old) release(old);
  root.dataset.state = "idle";
  stop.disabled = record.disabled = true;
  record.setAttribute("aria-pressed", "false");
  level.value = 0;
  delay.textContent = "";
}

const tell = (message) => { if (talk && talk.socket && talk.socket.readyState === WebSocket.OPEN) talk.socket.send(JSON.stringify(message)); };

function hear(message) {
  if (message.type === "hello") { canvas.width = canvas.height = message.size; root.dataset.seconds = message.seconds; }
  else if (message.type === "stats") delay.textContent = `${Math.round(middle(delays))} ms · ${Math.round(message.fps)} fps`;
  else if (message.type === "recorded") {
    result.hidden = false;
    result.querySelector("a").href = address(message.video);
    record.setAttribute("aria-pressed", "false");
    say("Recorded. It is marked as AI-generated.", "good");
    if (talk && talk.leaving) end();
  } else if (message.type === "refused") say(message.message, "bad");
  else if (message.type === "error") { end(); say(message.message, "bad"); }
  else if (message.type === "ended") { end(); say("The talk has ended."); }
}

// The newest picture wins: one that is decoded later than its follower is not shown.
let newest = -1, painted = 0;
const delays = []; // milliseconds from the sound's arrival at the server until its picture is painted, of two seconds
const middle = (values) => [...values].sort((a, b) => a - b)[values.length >> 1] || 0;
function show(buffer) {
  const view = new DataView(buffer), index = view.getUint32(0, true), made = view.getUint32(4, true), arrived = performance.now();
  createImageBitmap(new Blob([new Uint8Array(buffer, 8)], { type: "image/jpeg" })).then((bitmap) => {
    if (index > newest || newest - index > 1000) {
      newest = index;
      context.drawImage(bitmap, 0, 0);
      root.classList.add("has-picture");
      delays.push(made + performance.now() - arrived);
      if (delays.length > 50) delays.shift();
      root.dispatchEvent(new CustomEvent("ear-shown", { detail: { index, ms: delays[delays.length - 1] } }));
      root.dataset.painted = ++painted;
    }
    bitmap.close();
  });
}

stop.addEventListener("click", () => {
  if (record.getAttribute("aria-pressed") === "true") { talk.leaving = true; tell({ type: "record", on: false }); say("Writing the recording …"); }
  else { end(); say("Stopped."); }
});
record.addEventListener("click", () => {
  const on = record.getAttribute("aria-pressed") !== "true";
  record.setAttribute("aria-pressed", String(on));
  tell({ type: "record", on });
  say(on ? `Recording, ${Math.round(Number(root.dataset.seconds) / 60)} minutes at most.` : "Writing the recording …");
});

// Steering: what stands on a slider is sent, and sent again when a talk begins.
function steer(row, quietly) {
  const track = row.dataset.track, input = row.querySelector("input, select");
  const auto = row.classList.contains("is-auto") || (track === "emotion" && !input.value);
  if (auto && quietly) return;
  tell({ type: "set", tracks: { [track]: auto ? null : track === "emotion" ? [input.value, 0.8] : Number(input.value) } });
}
for (const row of rows) {
  const input = row.querySelector("input, select"), number = row.querySelector("output"), button = row.querySelector("button");
  if (!button) { input.addEventListener("change", () => steer(row)); continue; }
  const draw = () => {
    const low = Number(input.min), high = Number(input.max), at = (value) => `${(100 * (value - low)) / (high - low)}%`;
    const zero = Number(input.dataset.neutral), here = Number(input.value), auto = row.classList.contains("is-auto");
    row.style.setProperty("--from", at(Math.min(zero, here)));
    row.style.setProperty("--to", at(Math.max(zero, here)));
    number.textContent = auto ? "auto" : here;
    button.disabled = auto;
  };
  input.addEventListener("input", () => { row.classList.remove("is-auto"); draw(); steer(row); });
  button.addEventListener("click", () => { row.classList.add("is-auto"); input.value = input.dataset.neutral; draw(); steer(row); });
  draw();
}

watch("value", () => { if (props.value && props.value.url) begin(props.value); });
