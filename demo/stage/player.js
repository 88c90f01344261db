// The live player: frames and sound over a WebSocket, drawn on a canvas against the clock of the sound.
// One per page, `window.EARPlayer`. It knows nothing of Gradio; the components mount it and hand it takes.
(() => {
  if (window.EARPlayer) return;

  const FPS = 25;
  const buffer = window.EARBuffer;
  const REPORT_MS = 250;       // how often the server hears where we are; between two reports it counts on by itself
  const SCHEDULE_AHEAD = 0.35; // seconds of sound handed to the audio device in advance
  const PANEL_MS = 160;        // how often `shown` is told while frames run: what surrounds the picture need not keep up with it
  const DECODE_AHEAD = 6;      // frames
  const SERVER_AHEAD = 1;      // frames that the server may make beyond what we wait for
  const EXCUSED = 10 * FPS;    // frames after which running dry is no more because frames were made anew

  const listeners = {};
  const on = (name, callback) => { (listeners[name] ||= []).push(callback); };
  const emit = (name, detail) => { for (const callback of listeners[name] || []) callback(detail); };

  // --- the clock of the sound ---------------------------------------------------------------
  let audio = null, gain = null, volume = 1;

  function wakeSound() {
    if (!audio) {
      const Context = window.AudioContext || window.webkitAudioContext;
      if (!Context) return;
      audio = new Context({ sampleRate: 48000, latencyHint: "interactive" });
      gain = audio.createGain();
      gain.gain.value = volume;
      gain.connect(audio.destination);
    }
    if (audio.state === "suspended") audio.resume().catch(() => {});
  }
  for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, wakeSound, { capture: true });

  const soundRuns = () => audio !== null && audio.state === "running";
  const latency = () => (audio.outputLatency || audio.baseLatency || 0);
  // Seconds on the sound's clock; on the wall's while no sound is allowed to play.
  const now = () => (soundRuns() ? audio.currentTime : performance.now() / 1000);

  // --- the take -----------------------------------------------------------------------------
  const EMPTY = { state: "idle", frames: [], total: 0, rate: 48000, shown: -1, seen: -1, remade: -Infinity, eager: false };
  let take = { ...EMPTY };
  let socket = null;
  let origin = 0;         // clock time at which frame 0 would have played
  const clock = new window.EARClock(); // of the picture
  let clockIsSound = false;
  let playing = false, wanted = false, position = 0; // position: frame at which we stand while not playing
  let scheduled = 0, sources = [];
  let canvas = null, context = null;
  let lastReport = 0;
  let awaited = -1;       // the frame that is due but not decoded yet
  let drawn = null;       // the frame on the canvas
  let toldAt = 0;         // when `shown` was last told
  let waiting = 0, painting = 0; // timer and repaint that lead to the next tick; while nothing plays there are none
  const decoded = new Set(); // frames whose picture lies in memory
  const paints = [];      // wall times of painted frames, for the frame rate on the panel
  const text = new TextDecoder();

  const playhead = () => (playing ? (now() - origin) * FPS : position);
  const available = () => Math.min(take.frames.length, steering.barrier());
  const end = () => (ended() ? available() : take.total); // of what there is or will be
  function needed(from, stalls = take.stalls) {
    const left = Math.max(take.total - from, 0);
    if (take.eager) return buffer.soon(left, take.speed, stalls);
    // Who has steered will do so again: a few seconds without a stall are worth more than a long wait for the whole rest.
    return buffer.needed(take.remade > -Infinity ? Math.min(left, buffer.STEERED) : left, take.speed, stalls);
  }

  function address(path, scheme) {
    const base = new URL(((window.gradio_config && window.gradio_config.root) || location.origin).replace(/\/?$/, "/"));
    const url = new URL(path, base);
    if (scheme) url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    else url.protocol = location.protocol;
    return url.href;
  }

  function load(ticket) {
    unload();
    take = { ...EMPTY, frames: [], state: "starting", url: ticket.url, clicked: ticket.clicked || performance.now(), firstPaint: null, speed: null, stalls: 0, painted: 0 };
    wanted = true; playing = false; position = 0; scheduled = 0; paints.length = 0; drawn = null; clock.jump();
    wakeSound();
    emit("state", take);
    const opened = new WebSocket(address(`${ticket.url}/stream`, true));
    opened.binaryType = "arraybuffer";
    opened.onmessage = (event) => (typeof event.data === "string" ? hear(JSON.parse(event.data)) : see(event.data));
    opened.onclose = () => { if (socket === opened && !ended()) fail("The connection was lost. Press Generate to start again."); };
    socket = opened;
  }

  function unload() {
    silence();
    steering.clear();
    if (socket) { const old = socket; socket = null; old.close(); }
    for (const frame of decoded) frame.bitmap.close();
    decoded.clear();
    take = { ...EMPTY, frames: [] };
  }

  const ended = () => ["done", "stopped", "failed", "idle"].includes(take.state);

  function fail(message) {
    take.state = "failed"; take.message = message; wanted = false;
    steering.clear();
    halt();
    emit("state", take);
  }

  function hear(message) {
    if (message.type === "queue") { take.state = "queued"; take.waiting = buffer.place(message.place, message.seconds ?? Infinity); emit("state", take); }
    else if (message.type === "hello") {
      if (take.state === "queued") take.clicked = performance.now(); // waiting for others is not waiting for the picture
      take.total = message.frames; take.rate = message.rate; take.size = message.size; take.seed = message.seed; take.speed = message.speed; take.state = "streaming";
      report(true);
      emit("state", take);
    } else if (message.type === "stats") { take.stats = message; take.speed = message.speed; report(true); emit("stats", take); }
    else if (message.type === "accepted") steering.accepted(message);
    else if (message.type === "back") steering.goBack(message);
    else if (message.type === "parked") emit("parked", take);
    else if (message.type === "writing") emit("writing", message);
    else if (message.type === "refused") { steering.refused(message.id); emit("refused", message); }
    else if (message.type === "applied") applied(message);
    else if (message.type === "done") {
      take.state = message.state === "finished" ? "done" : "stopped";
      take.video = message.video && address(message.video); take.controls = message.controls; take.fingerprint = message.fingerprint;
      take.log = address(`${take.url}/controls`);
      steering.clear();
      if (take.state === "stopped") { wanted = false; halt(); }
      emit("state", take);
      emit("done", take);
      if (wanted && !playing) tick(); // nothing more is waited for
    } else if (message.type === "error") fail(message.message);
  }

  function applied(message) {
    const asked = steering.asked(message.change);
    if (asked === null) return;
    emit("applied", { frame: message.frame, tracks: message.tracks, serverMs: message.ms, asked });
    const here = message.frame < take.shown || (message.frame === take.shown && drawn === take.frames[take.shown]);
    if (here) emit("visible", { frame: message.frame, ms: performance.now() - asked });
    else take.watching = [...(take.watching || []), { frame: message.frame, asked }];
  }

  function see(buffer) {
    const view = new DataView(buffer);
    const index = view.getUint32(0, true), jsonBytes = view.getUint32(4, true), jpegBytes = view.getUint32(8, true);
    const about = JSON.parse(text.decode(new Uint8Array(buffer, 12, jsonBytes)));
    const jpeg = new Blob([new Uint8Array(buffer, 12 + jsonBytes, jpegBytes)], { type: "image/jpeg" });
    const sound = new Int16Array(buffer.slice(12 + jsonBytes + jpegBytes));
    const frame = { index, jpeg, sound, applied: about.applied, bitmap: null, arrived: performance.now() };
    take.frames[index] = frame;
    if (index === 0) take.firstArrival = performance.now() - take.clicked;
    decode(frame);
    emit("frame", frame);
    if (wanted && !playing) tick();
  }

  // Only what is about to be shown stays decoded: a minute of bitmaps would be hundreds of megabytes.
  function decode(frame) {
    if (!frame || frame.bitmap || frame.decoding) return;
    frame.decoding = true;
    createImageBitmap(frame.jpeg).then((bitmap) => {
      frame.decoding = false;
      if (take.frames[frame.index] !== frame) { bitmap.close(); return; }
      frame.bitmap = bitmap;
      decoded.add(frame);
      if (frame.index === 0 && take.shown < 0 && steering.held < 0) draw(frame); // the first picture need not wait for the sound
      else if (frame.index === awaited) show(awaited);
    }).catch(() => { frame.decoding = false; });
  }

  // --- playing ------------------------------------------------------------------------------
  function begin(frame) {
    clockIsSound = soundRuns();
    position = frame;
    scheduled = Math.floor(frame);
    origin = now() + 0.02 - frame / FPS;
    clock.start(frame, now() + 0.02);
    paints.length = 0;
    playing = true;
    report(true);
    emit("playing", true);
    tickAt(frame);
  }

  function halt() {
    position = Math.max(0, Math.min(playhead(), available()));
    playing = false;
    silence();
    clearTimeout(waiting); cancelAnimationFrame(painting);
    report(true);
    emit("playing", false);
    if (take.shown >= 0) tell();
  }

  function silence() {
    for (const source of sources) { try { source.stop(); } catch { /* it has ended by itself */ } }
    sources = [];
  }

  function schedule() {
    if (!clockIsSound) return;
    while (scheduled < available()) {
      const at = origin + scheduled / FPS;
      if (at > audio.currentTime + SCHEDULE_AHEAD) break;
      if (!take.frames[scheduled]) { scheduled += 1; continue; } // the connection was too slow for it
      const samples = take.frames[scheduled].sound;
      const piece = audio.createBuffer(1, samples.length, take.rate);
      const channel = piece.getChannelData(0);
      for (let i = 0; i < samples.length; i++) channel[i] = samples[i] / 32768;
      const source = audio.createBufferSource();
      source.buffer = piece;
      source.connect(gain);
      const late = audio.currentTime - at;
      if (late < 1 / FPS) {
        source.start(Math.max(at, audio.currentTime), Math.max(late, 0));
        sources.push(source);
        source.onended = () => { const i = sources.indexOf(source); if (i >= 0) sources.splice(i, 1); };
      }
      scheduled += 1;
    }
  }

  // Looks again when `frame` is due: a timer, and then the browser's next repaint. Nothing wakes the page in between.
  function tickAt(frame) {
    clearTimeout(waiting);
    const seconds = (frame - heard()) / FPS;
    waiting = setTimeout(() => { cancelAnimationFrame(painting); painting = requestAnimationFrame(tick); }, Math.max(0, 1000 * seconds));
  }

  // What is heard now, in frames: it left the context `latency` seconds ago.
  const heard = () => clock.due(now(), performance.now() / 1000, clockIsSound ? latency() : 0);

  // Begins as soon as what is there lasts; until then it says how long that takes.
  function collect() {
    if (steering.held >= 0) return; // the hand comes first
    const missing = needed(position) - (available() - position);
    if (available() > position && (missing <= 0 || available() >= end())) { begin(position); return; }
    const words = buffer.words(take.speed, missing / (take.speed || FPS), take.seen >= 0);
    if (take.state === "streaming" && words && words !== take.waiting) { take.waiting = words; emit("buffering", words); }
  }

  function tick() {
    if (wanted && !playing) collect();
    if (!playing) return;
    if (clockIsSound !== soundRuns()) { const at = Math.max(take.shown, 0); silence(); begin(at); }
    schedule();
    const at = heard(), due = Math.floor(at);
    if (at >= end()) { finishPlaying(); return; }
    if (playhead() >= available() && available() < end()) {
      if (take.state !== "queued" && available() - take.remade > EXCUSED) take.stalls += 1; // neither is the machine's fault
      show(available() - 1); halt(); emit("state", take); return;
    }
    if (due >= 0) show(Math.min(due, available() - 1));
    if (performance.now() - lastReport > REPORT_MS) report(false);
    tickAt(due + 1);
  }

  function finishPlaying() {
    show(end() - 1);
    wanted = false;
    halt();
    position = end() - 1;
    emit("played", take);
  }

  function show(index) {
    for (let i = index; i < index + DECODE_AHEAD; i++) decode(take.frames[i]);
    awaited = take.frames[index] && !take.frames[index].bitmap ? index : -1;
    let frame = take.frames[index];
    // A picture that is a little late is better than none.
    for (let i = index; playing && i > take.shown && !frame?.bitmap; i--) frame = take.frames[i];
    if (!frame || !frame.bitmap || frame === drawn) return;
    draw(frame);
    if (playing) take.seen = Math.max(take.seen, frame.index);
    take.painted += 1;
    paints.push(performance.now());
    emit("painted", frame.index);
    if (paints.length > 2 * FPS) paints.shift();
    for (const other of decoded) {
      if (other.index >= index && other.index < index + DECODE_AHEAD) continue;
      other.bitmap.close();
      other.bitmap = null;
      decoded.delete(other);
    }
    for (const entry of take.watching || []) if (entry.frame <= index) emit("visible", { frame: entry.frame, ms: performance.now() - entry.asked });
    take.watching = (take.watching || []).filter((entry) => entry.frame > index);
    if (index === steering.held) { clock.reach(index); steering.answered(); }
  }

  function draw(frame) {
    if (!context) return;
    if (canvas.width !== frame.bitmap.width || canvas.height !== frame.bitmap.height) { canvas.width = frame.bitmap.width; canvas.height = frame.bitmap.height; }
    context.drawImage(frame.bitmap, 0, 0);
    take.shown = frame.index;
    drawn = frame;
    if (take.firstPaint === null) { take.firstPaint = performance.now() - take.clicked; emit("stats", take); }
    if (!playing || performance.now() - toldAt >= PANEL_MS) tell();
  }

  function tell() {
    toldAt = performance.now();
    emit("shown", take.shown);
  }

  function paintedFps() {
    if (paints.length < 2) return 0;
    return 1000 * (paints.length - 1) / (paints[paints.length - 1] - paints[0]);
  }

  // --- talking to the server ----------------------------------------------------------------
  function send(message) {
    if (!socket || socket.readyState !== WebSocket.OPEN) return false;
    socket.send(JSON.stringify(message));
    return true;
  }

  function report(always) {
    if (take.state !== "streaming" || (!always && !playing)) return;
    lastReport = performance.now();
    const frame = Math.max(playhead(), 0);
    // A fast machine that stumbled once is steered as directly as before when it runs again.
    const stalls = (wanted && !playing) || buffer.strained(take.speed) ? take.stalls : 0;
    const lead = needed(frame, stalls) + SERVER_AHEAD;
    send({ type: "playhead", frame: Math.min(frame, available()), playing, paused: !wanted, lead });
  }

  // Stops before `frame`; what has left for the sound device is seen, too.
  function standAt(frame) {
    if (playing) { show(frame - 1); halt(); }
    position = frame;
    awaited = take.frames[frame] ? -1 : frame;
    take.waiting = "";
  }

  // Forgets all frames from this one on: they come once more, and one of them is for a canvas that shows it already.
  function drop(frame, wantedAtOnce) {
    take.remade = frame;
    for (const old of take.frames.splice(frame)) {
      if (!old?.bitmap) continue;
      old.bitmap.close();
      old.bitmap = null;
      decoded.delete(old);
    }
    awaited = wantedAtOnce;
    emit("dropped", frame);
  }

  const steering = new window.EARSteering({ send, emit, report, tick, standAt, drop, playhead, get take() { return take; }, get playing() { return playing; }, get waits() { return wanted && !playing && needed(position) > window.EARSteering.FEW; } });

  window.EARPlayer = {
    on, load, unload, paintedFps, playhead, wakeSound,
    mount(element) { canvas = element; context = canvas.getContext("2d"); },
    get take() { return take; },
    get playing() { return wanted; },
    get sound() { return { running: soundRuns(), time: audio ? audio.currentTime : 0, latency: audio ? latency() : 0, state: audio ? audio.state : "none" }; },
    // Seconds by which the sound that is heard leads the picture on the canvas.
    skew() { return clockIsSound && playing ? (playhead() / FPS - latency()) - (take.shown + 0.5) / FPS : 0; },
    set: (tracks, asked) => steering.set(tracks, asked), // {track: value, or null to release}
    plan: (controls) => steering.plan(controls),
    play() { wakeSound(); if (!available()) return; if (!playing && position >= end() - 1) { position = 0; clock.jump(); } wanted = true; report(true); tick(); },
    // Does not wait for a deep buffer any more in this take.
    playNow() { wakeSound(); take.eager = wanted = true; if (!playing && steering.held < 0 && available() > position) begin(position); else tick(); },
    pause() { wanted = false; if (playing) halt(); else report(true); },
    seek(frame) {
      const target = Math.max(0, Math.min(frame, available() - 1));
      clock.jump();
      steering.held = -1;
      if (playing) { silence(); begin(target); } else { position = target; report(true); tick(); }
      show(Math.floor(target));
      emit("shown", Math.floor(target));
    },
    stop() { send({ type: "stop" }); wanted = false; if (playing) halt(); },
    setVolume(value) { volume = value; if (gain) gain.gain.value = value; },
  };
  addEventListener("pagehide", unload);
})();
