// Store: everything a timeline knows, and every change to it. `tracks` is replaced, never changed in place, so the undo
// history (bounded) is a list of references.
function createStore(timelineId) {
  const HISTORY = 200;
  const COALESCE_MS = 900; // arrow keys held down, a slider in motion: one undo step
  const listeners = new Set();
  const state = {
    id: timelineId,
    duration: 10, // seconds; a take without a voice yet
    waveform: [], // peaks 0..1, evenly spaced over the duration
    tracks: {}, // name -> keyframes
    applied: {}, // name -> value per frame
    playhead: 0, // frame
    range: null, // [first, last] frames, a selected stretch of time
    selection: [], // [{track, time}]
    active: TRACKS[0].name, // the lane that keys and buttons act on
    collapsed: new Set(TRACKS.filter((track) => !track.open).map((track) => track.name)),
  };
  let past = [];
  let future = [];
  let last = { key: "", at: 0 };

  function emit(what, detail = {}) {
    for (const listener of listeners) listener(what, detail);
  }

  const numFrames = () => Math.max(1, Math.round(state.duration * FPS));
  const lastFrame = () => numFrames() - 1;
  const contentSeconds = () => Math.max(state.duration, Curves.lastTime(state.tracks) + 1 / FPS, 1);
  const clampFrame = (frame) => Math.min(Math.max(0, Math.round(frame)), Math.max(lastFrame(), Curves.frameOf(Curves.lastTime(state.tracks))));
  const keys = (name) => state.tracks[name] || [];

  function prune(tracks) {
    return Object.fromEntries(TRACKS.map((track) => [track.name, tracks[track.name]]).filter(([, list]) => list && list.length));
  }

  function keepSelection() {
    state.selection = state.selection.filter(({ track, time }) => keys(track).some((key) => Curves.sameTime(key[0], time)));
  }

  // One undoable change. `group` joins changes of the same kind that follow each other quickly; `quiet` ones are not
  // the user's own editing of the timeline (a file, live steering) but can be undone all the same.
  function edit(reason, tracks, { selection, group = "", quiet = false } = {}) {
    const now = performance.now();
    const joined = group && last.key === group && now - last.at < COALESCE_MS;
    last = { key: group, at: now };
    if (!joined) {
      past.push({ tracks: state.tracks, selection: state.selection });
      if (past.length > HISTORY) past.shift();
    }
    future = [];
    state.tracks = prune(tracks);
    if (selection) state.selection = selection;
    keepSelection();
    emit("tracks", { reason, quiet });
  }

  function travel(from, to, reason) {
    if (!from.length) return false;
    to.push({ tracks: state.tracks, selection: state.selection });
    const { tracks, selection } = from.pop();
    state.tracks = tracks;
    state.selection = selection;
    last = { key: "", at: 0 };
    keepSelection();
    emit("tracks", { reason, quiet: false });
    return true;
  }

  function select(selection, active) {
    state.selection = selection;
    if (active) state.active = active;
    emit("selection");
  }

  // Changes the keyframes of one track.
  function editTrack(reason, name, list, options) {
    edit(reason, { ...state.tracks, [name]: list }, options);
  }

  const selectedIn = (name) => state.selection.filter((item) => item.track === name).map((item) => item.time);

  function add(name, frame, value) {
    const at = clampFrame(frame);
    const inForce = Curves.valueAt(name, keys(name), at);
    const track = Curves.byName.get(name);
    const neutral = name === "emotion" ? ["happy", 0.7] : track.neutral;
    const wanted = value === undefined ? inForce ?? neutral : value;
    state.active = name;
    editTrack("add", name, Curves.put(keys(name), Curves.timeOf(at), wanted), { selection: [{ track: name, time: Curves.timeOf(at) }] });
  }

  function removeSelected() {
    if (!state.selection.length) return false;
    const tracks = { ...state.tracks };
    for (const name of new Set(state.selection.map((item) => item.track))) tracks[name] = Curves.without(keys(name), selectedIn(name));
    edit("delete", tracks, { selection: [] });
    return true;
  }

  // The selected keyframes become releases; without a selection the active track is released at the playhead.
  function release() {
    if (!state.selection.length) {
      add(state.active, state.playhead, null);
      return;
    }
    setSelectedValues("release", () => null);
  }

  function setSelectedValues(reason, change, group) {
    const tracks = { ...state.tracks };
    for (const { track, time } of state.selection) {
      tracks[track] = (tracks[track] || []).map((key) => (Curves.sameTime(key[0], time) ? [key[0], change(key[1], track)] : key));
    }
    edit(reason, tracks, { group });
  }

  // {tracks, selection} with the keyframes `items`, as they are in `base`, moved by whole frames; those of `name` by
  // `rise` in value too.
  function moved(base, items, frames, rise = 0, name = "") {
    const earliest = Math.min(...items.map(({ time }) => Curves.frameOf(time)));
    const steps = Math.max(frames, -earliest);
    const tracks = { ...base };
    const selection = [];
    for (const track of new Set(items.map((item) => item.track))) {
      const times = items.filter((item) => item.track === track).map((item) => item.time);
      const shifted = Curves.shift(track, tracks[track] || [], times, steps, track === name ? rise : 0);
      tracks[track] = shifted.keys;
      selection.push(...shifted.times.map((time) => ({ track, time })));
    }
    return { tracks, selection };
  }

  // A change shown while a pointer is down; not an undo step, which `edit` makes of it when the pointer goes up.
  function preview(tracks, selection) {
    state.tracks = prune(tracks);
    state.selection = selection;
    emit("preview");
  }

  return {
    state, edit, editTrack, add, moved, preview, release, removeSelected, select, keys,
    numFrames, lastFrame, contentSeconds, clampFrame, selectedIn,
    undo: () => travel(past, future, "undo"),
    redo: () => travel(future, past, "redo"),
    canUndo: () => past.length > 0,
    canRedo: () => future.length > 0,
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    setPlayhead(frame, source) {
      state.playhead = clampFrame(frame);
      emit("playhead", { source });
    },
    setRange(range) {
      state.range = range;
      emit("range");
    },
    toggleLane(name, open) {
      const show = open ?? state.collapsed.has(name);
      if (show) state.collapsed.delete(name);
      else state.collapsed.add(name);
      emit("lanes");
    },
  };
}
