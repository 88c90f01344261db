// Main: one timeline in a gr.HTML component. Given by Gradio: element, trigger, props, server, watch.
const SCHEMA = "ear-timeline"; // the name under which a page's timelines find each other
const registry = (window[SCHEMA] ??= { timelines: new Map(), waiting: new Map() });

window.EARTimeline = {
  get: (id = "timeline") => registry.timelines.get(id),
  ids: () => [...registry.timelines.keys()],
  // Resolves with the timeline once the page has it.
  ready: (id = "timeline") => {
    if (registry.timelines.has(id)) return Promise.resolve(registry.timelines.get(id));
    return new Promise((resolve) => registry.waiting.set(id, [...(registry.waiting.get(id) || []), resolve]));
  },
};

function start() {
  const id = TIMELINE_ID;
  const root = element.querySelector("[data-ear-timeline]");
  const earlier = registry.timelines.get(id);
  const store = createStore(id);
  const { state } = store;
  const panel = createPanel(root, store);
  const viewer = createView(root, panel, store);
  const callbacks = { edit: new Set(), seek: new Set() };
  let publishing = 0;

  // For scripts on the page, which need no round trip through Python.
  function tell(name, detail) {
    callbacks[name].forEach((callback) => callback(detail));
    root.dispatchEvent(new CustomEvent(name === "edit" ? "timeline:change" : "timeline:seek", { detail, bubbles: true }));
  }

  // What Python gets: without waveform and applied values, which it has sent itself.
  function publish() {
    clearTimeout(publishing);
    publishing = 0;
    props.value = { fps: FPS, duration: state.duration, tracks: state.tracks, playhead: state.playhead };
  }

  // While frames stream in, or a slider records, Python's copy follows a little later.
  function publishSoon() {
    if (!publishing) publishing = setTimeout(publish, 300);
  }

  // Python's listeners hear of a burst (an arrow key held down) once, when it is over; its value is current all the time.
  const EVENT_MS = 150;
  const events = new Map();
  function triggerSoon(name, detail) {
    clearTimeout(events.get(name));
    events.set(name, setTimeout(() => (name === "seek" ? trigger("seek", detail) : trigger("input", detail)), EVENT_MS));
  }

  function seek(frame, settled) {
    store.setPlayhead(frame, "user");
    viewer.reveal(state.playhead, 0.5);
    tell("seek", { frame: state.playhead, settled });
    if (!settled) return;
    publish();
    triggerSoon("seek", { frame: state.playhead });
  }

  store.subscribe((what, detail) => {
    if (what === "tracks") {
      viewer.refit();
      panel.layout();
      if (detail.quiet) publishSoon();
      else {
        publish();
        tell("edit", { tracks: state.tracks, reason: detail.reason });
        triggerSoon("input", { tracks: state.tracks, reason: detail.reason, playhead: state.playhead });
      }
    }
    if (what === "lanes" || what === "selection") panel.layout();
    if (what !== "playhead" && what !== "range") panel.inspector();
    viewer.invalidate(what === "playhead" ? "readouts" : "lanes");
    viewer.invalidate("readouts");
  });

  function setWaveform(peaks, seconds) {
    state.waveform = Array.from(peaks || [], (peak) => Math.min(1, Math.max(0, Number(peak) || 0)));
    if (seconds > 0) state.duration = seconds;
    viewer.refit();
    describeLength();
    viewer.invalidate("all");
  }

  function describeLength() {
    panel.part("title").textContent = props.label || LABEL;
    panel.part("length").textContent = `${state.duration.toFixed(2)} s · ${store.numFrames()} frames`;
  }

  function setControls(document, { reason = "set", quiet = true } = {}) {
    const given = Curves.checkTracks(typeof document === "string" ? JSON.parse(document) : document);
    const tracks = Object.fromEntries(Object.entries(given).map(([name, keys]) => [name, Curves.thin(name, keys)]));
    const full = Object.fromEntries(TRACKS.filter(({ name }) => tracks[name]?.length).map(({ name }) => [name, tracks[name]]));
    if (JSON.stringify(full) === JSON.stringify(state.tracks)) return; // a take's log of what was drawn: nothing to undo
    store.edit(reason, full, { selection: [], quiet });
    const used = Object.keys(tracks).filter((name) => tracks[name].length);
    if (used.length <= 4) used.forEach((name) => store.toggleLane(name, true));
    viewer.invalidate("all");
  }

  // Takes what a value from Python has; what it lacks stays as it is.
  function take(value, fresh = false) {
    if (!value || typeof value !== "object") return;
    try {
      if (value.waveform || value.duration) setWaveform(value.waveform ?? state.waveform, value.duration);
      if (value.tracks && fresh) state.tracks = Curves.checkTracks(value.tracks);
      else if (value.tracks && JSON.stringify(value.tracks) !== JSON.stringify(state.tracks)) setControls(value.tracks, { reason: "python" });
      if (value.applied) state.applied = Object.fromEntries(Object.entries(value.applied).map(([name, list]) => [name, [...list]]));
      if (value.playhead !== undefined) store.setPlayhead(value.playhead, "python");
      viewer.invalidate("all");
    } catch (error) {
      panel.say(error.message, true);
    }
  }

  const api = {
    setPlayhead(frame) {
      store.setPlayhead(frame, "stream");
      viewer.reveal(state.playhead);
    },
    recordKeyframe(track, frame, value, { latch = false } = {}) {
      const keys = Curves.record(track, store.keys(track), Math.max(0, Math.round(frame)), Curves.check(track, value), latch);
      store.editTrack("record", track, keys, { group: "record", quiet: true });
    },
    setApplied(frame, values) {
      for (const { name } of TRACKS) {
        const value = values[name] ?? null;
        const list = (state.applied[name] ??= []);
        while (list.length < frame) list.push(null);
        list[frame] = value;
      }
      viewer.appliedAt(frame);
    },
    // Of what was in force, forget the frames from this one on.
    clearApplied(first = 0) {
      for (const list of Object.values(state.applied)) list.length = Math.min(list.length, first);
      viewer.invalidate("all");
    },
    getControls: () => JSON.parse(JSON.stringify({ fps: FPS, tracks: state.tracks })),
    setControls,
    setWaveform,
    valuesAt: (frame) => Object.fromEntries(TRACKS.map(({ name }) => [name, Curves.valueAt(name, store.keys(name), frame)])),
    insertPreset(preset) {
      const result = Presets.apply(preset, state);
      store.edit(preset, result.tracks, { selection: [] });
      result.touched.forEach((name) => store.toggleLane(name, true));
      store.state.active = result.touched[0];
      panel.layout();
      viewer.reveal(result.span[0], 0.2);
      const label = Presets.LIST.find((item) => item.id === preset).label;
      panel.say(`${label} at ${Curves.timeOf(result.span[0]).toFixed(2)} s on ${result.touched.map((name) => Curves.byName.get(name).label).join(", ")}`);
    },
    undo: store.undo,
    redo: store.redo,
    fit: viewer.fit,
    showError: (text) => panel.say(text, Boolean(text)),
    // Page coordinates of a point of a lane, or of a keyframe; for guided tours and tests.
    pointOf(track, frame, value) {
      const box = panel.lanes.get(track).plot.getBoundingClientRect();
      const height = viewer.heightOf(track);
      const y = value === undefined || value === null ? height / 2 : yOf(Curves.byName.get(track), Curves.level(value), height);
      return { x: box.left + xOf(viewer.view, Curves.timeOf(frame)), y: box.top + y };
    },
    onEdit: (callback) => (callbacks.edit.add(callback), () => callbacks.edit.delete(callback)),
    onSeek: (callback) => (callbacks.seek.add(callback), () => callbacks.seek.delete(callback)),
    state: () => ({ duration: state.duration, playhead: state.playhead, range: state.range, selection: [...state.selection], applied: state.applied, waveform: state.waveform }),
    dispose: viewer.dispose,
  };

  createPointer(panel, store, viewer, seek);
  createKeys(root, panel, store, viewer, seek);
  createActions(root, panel, store, viewer, api, server);
  if (earlier) {
    // The same timeline drawn anew (its tab was hidden and shown): it goes on with what it had.
    const before = earlier.state();
    setWaveform(before.waveform, before.duration);
    state.tracks = earlier.getControls().tracks;
    state.applied = before.applied;
    state.playhead = before.playhead;
    earlier.dispose();
  } else {
    take(props.value, true);
    for (const { name } of TRACKS) if (store.keys(name).length) state.collapsed.delete(name);
    panel.say(`Double ${FINGER ? "tap" : "click"} a lane to add a keyframe, then drag it. What you do not ask for, the model decides.`);
  }
  watch("value", () => take(props.value));
  describeLength();
  panel.layout();
  panel.inspector();
  viewer.readTheme();
  viewer.resize();
  registry.timelines.set(id, api);
  for (const resolve of registry.waiting.get(id) || []) resolve(api);
  registry.waiting.delete(id);
}

start();
