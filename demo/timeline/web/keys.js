// Keys: everything a pointer can do, from the keyboard. Lanes and the ruler are tab stops; keys act on the focused lane.
function createKeys(root, panel, store, viewer, seek) {
  const { state } = store;

  function neighbour(name, direction) {
    const keys = store.keys(name);
    const chosen = store.selectedIn(name);
    const from = chosen.length ? chosen[direction > 0 ? chosen.length - 1 : 0] : Curves.timeOf(state.playhead);
    const ahead = direction > 0 ? keys.find(([time]) => time > from + 1e-6) : keys.findLast(([time]) => time < from - 1e-6);
    return ahead || (chosen.length ? null : direction > 0 ? keys[0] : keys[keys.length - 1]) || null;
  }

  function choose(name, key) {
    if (!key) return;
    store.select([{ track: name, time: key[0] }], name);
    viewer.reveal(Curves.frameOf(key[0]), 0.5);
    announce();
  }

  function announce() {
    if (!state.selection.length) return;
    const { track, time } = state.selection[0];
    const key = store.keys(track).find((item) => Curves.sameTime(item[0], time));
    if (!key) return;
    const value = key[1] === null ? "released" : panel.describe(track, key[1]);
    panel.say(`${Curves.byName.get(track).label} keyframe at ${time.toFixed(2)} s (frame ${Curves.frameOf(time)}): ${value}`);
  }

  function nudge(frames, steps) {
    const items = state.selection;
    const rise = steps * Curves.byName.get(state.active).step;
    const result = store.moved(state.tracks, items, frames, rise, state.active);
    store.edit("move", result.tracks, { selection: result.selection, group: `nudge ${frames ? "time" : "value"}` });
    viewer.reveal(Curves.frameOf(result.selection[0].time), 0.5);
    announce();
  }

  const inLane = {
    ArrowLeft: (big) => (state.selection.length ? nudge(-big, 0) : seek(state.playhead - big, true)),
    ArrowRight: (big) => (state.selection.length ? nudge(big, 0) : seek(state.playhead + big, true)),
    ArrowUp: (big) => state.selection.length && nudge(0, big),
    ArrowDown: (big) => state.selection.length && nudge(0, -big),
    PageUp: () => choose(state.active, neighbour(state.active, -1)),
    PageDown: () => choose(state.active, neighbour(state.active, 1)),
    Home: () => choose(state.active, store.keys(state.active)[0]),
    End: () => choose(state.active, store.keys(state.active).at(-1)),
    Enter: () => store.add(state.active, state.playhead),
    Insert: () => store.add(state.active, state.playhead),
    k: () => store.add(state.active, state.playhead),
    r: () => store.release(),
    Delete: () => store.removeSelected() && panel.say("Deleted"),
    Backspace: () => store.removeSelected() && panel.say("Deleted"),
    Escape: () => {
      store.select([]);
      store.setRange(null);
    },
  };

  const onRuler = {
    ArrowLeft: (big) => seek(state.playhead - big, true),
    ArrowRight: (big) => seek(state.playhead + big, true),
    Home: () => seek(0, true),
    End: () => seek(store.lastFrame(), true),
    Escape: () => store.setRange(null),
  };

  const anywhere = {
    "+": () => viewer.zoomAt(1.5, focusX()),
    "=": () => viewer.zoomAt(1.5, focusX()),
    "-": () => viewer.zoomAt(1 / 1.5, focusX()),
    0: () => viewer.fit(),
  };

  // Zooming by key keeps the selected keyframe, or else the playhead, in its place.
  function focusX() {
    const time = state.selection.length ? state.selection[0].time : Curves.timeOf(state.playhead);
    const x = xOf(viewer.view, time);
    return x >= 0 && x <= viewer.view.width ? x : viewer.view.width / 2;
  }

  function history(event) {
    const letter = event.key.toLowerCase();
    if (!(event.ctrlKey || event.metaKey) || (letter !== "z" && letter !== "y" && letter !== "a")) return false;
    if (letter === "a") {
      store.select(store.keys(state.active).map(([time]) => ({ track: state.active, time })), state.active);
      return true;
    }
    const back = letter === "z" && !event.shiftKey;
    panel.say((back ? store.undo() : store.redo()) ? (back ? "Undone" : "Redone") : "Nothing to " + (back ? "undo" : "redo"));
    return true;
  }

  root.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea")) return;
    const lane = [...panel.lanes].find(([, item]) => item.plot === event.target);
    if (lane && state.active !== lane[0]) store.select(state.selection.filter((item) => item.track === lane[0]), lane[0]);
    let done = history(event);
    if (!done && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const table = lane ? inLane : event.target === panel.part("ruler") ? onRuler : {};
      const action = table[name] || (lane || event.target === panel.part("ruler") ? anywhere[name] : undefined);
      if (action) {
        action(event.shiftKey ? 5 : 1);
        done = true;
      }
    }
    if (done) {
      event.preventDefault();
      event.stopPropagation();
    }
  });
}
