// Panel: the parts of the page around the canvases: lanes' labels, toolbar, inspector, status line.
function createPanel(root, store) {
  const { state } = store;
  const part = (name) => root.querySelector(`[data-tl="${name}"]`);
  const button = (name) => root.querySelector(`[data-do="${name}"]`);
  const field = (name) => root.querySelector(`[data-field="${name}"]`);
  const lanes = new Map();

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  function buildLane(track) {
    const fold = make("button", { type: "button", class: "tl-fold", title: track.tip });
    fold.append(make("span", { class: "tl-chevron", "aria-hidden": "true" }), make("span", { class: "tl-name" }, track.label));
    const asked = make("span", { class: "tl-readout" });
    const applied = make("span", { class: "tl-readout tl-muted" });
    const plus = make("button", { type: "button", class: "tl-plus", "aria-label": `Add a ${track.label} keyframe at the playhead`, title: "Keyframe at the playhead" }, "+");
    const label = make("div", { class: "tl-label" }, fold, plus, asked, applied);
    const canvas = make("canvas");
    const plot = make("div", { class: "tl-plot", tabindex: "0", role: "application", "aria-roledescription": "control lane" }, canvas);
    const row = make("div", { class: "tl-row tl-lane", "data-track": track.name, style: `--tl-colour: var(--tl-${track.name})` }, label, plot);
    fold.addEventListener("click", () => store.toggleLane(track.name));
    plus.addEventListener("click", () => {
      store.toggleLane(track.name, true);
      store.add(track.name, state.playhead);
      plot.focus();
    });
    part("lanes").append(row);
    lanes.set(track.name, { track, row, fold, asked, applied, plot, canvas });
  }

  function describe(name, value) {
    if (value === null || value === undefined) return "model";
    if (Array.isArray(value)) return `${value[0]} ${value[1].toFixed(2)}`;
    const track = Curves.byName.get(name);
    const text = value.toFixed(track.unit === "°" ? 1 : 2);
    return `${track.low < 0 && value > 0 ? "+" : ""}${text}${track.unit}`.replace("-", "\u2212");
  }

  function say(text, isError = false) {
    const status = part("status");
    status.textContent = text;
    status.classList.toggle("tl-error", isError);
    status.setAttribute("role", isError ? "alert" : "status");
  }

  function readouts() {
    for (const [name, lane] of lanes) {
      const asked = describe(name, Curves.valueAt(name, store.keys(name), state.playhead));
      const values = state.applied[name];
      const reached = values && values.length > state.playhead;
      const applied = reached && (values[state.playhead] !== null || asked !== "model") ? describe(name, values[state.playhead]) : "";
      if (lane.asked.textContent !== asked) lane.asked.textContent = asked;
      lane.asked.classList.toggle("tl-muted", asked === "model");
      const text = applied ? `applied ${applied}` : "";
      if (lane.applied.textContent !== text) lane.applied.textContent = text;
    }
    const time = Curves.timeOf(state.playhead);
    part("clock").textContent = `${time.toFixed(2)} s`;
    const ruler = part("ruler");
    ruler.setAttribute("aria-valuenow", state.playhead);
    ruler.setAttribute("aria-valuemax", store.lastFrame());
    ruler.setAttribute("aria-valuetext", `${time.toFixed(2)} seconds, frame ${state.playhead}`);
  }

  function layout() {
    let folded = 0;
    for (const [name, lane] of lanes) {
      const open = !state.collapsed.has(name);
      folded += open ? 0 : 1;
      lane.row.classList.toggle("tl-open", open);
      lane.row.classList.toggle("tl-active", state.active === name);
      lane.fold.setAttribute("aria-expanded", String(open));
      const count = store.keys(name).length;
      lane.row.classList.toggle("tl-used", count > 0);
      lane.plot.setAttribute("aria-label", `${lane.track.label}, ${count} keyframe${count === 1 ? "" : "s"}`);
    }
    button("fold").textContent = folded ? "Unfold all" : "Fold all";
  }

  function inspector() {
    const single = state.selection.length === 1 ? state.selection[0] : null;
    const key = single && store.keys(single.track).find((item) => Curves.sameTime(item[0], single.time));
    const name = single ? single.track : state.active;
    const track = Curves.byName.get(name);
    const emotion = name === "emotion" && Boolean(key);
    part("emotion-field").hidden = !emotion;
    part("value-name").textContent = emotion ? "Intensity" : "Value";
    part("unit").textContent = track.unit || (emotion ? "" : `${track.low}..${track.high}`);
    for (const id of ["time", "frame", "value", "emotion"]) field(id).disabled = !key;
    const value = key ? key[1] : null;
    fill("time", key ? String(Number(key[0].toFixed(4))) : "");
    fill("frame", key ? String(Curves.frameOf(key[0])) : "");
    field("value").min = track.low;
    field("value").max = track.high;
    field("value").placeholder = key ? "released" : "";
    fill("value", value === null ? "" : String(Number(Curves.level(value).toFixed(4))));
    field("emotion").value = value ? value[0] : "";
    button("delete").disabled = !state.selection.length;
    const chosen = part("chosen");
    chosen.style.setProperty("--tl-colour", `var(--tl-${name})`);
    chosen.textContent = state.selection.length > 1 ? `${state.selection.length} keyframes` : track.label;
    button("undo").disabled = !store.canUndo();
    button("redo").disabled = !store.canRedo();
  }

  // A field that the user is typing in is left alone.
  function fill(name, text) {
    const input = field(name);
    if (document.activeElement !== input || input.dataset.typing !== "yes") input.value = text;
  }

  function commitField(name) {
    const input = field(name);
    input.dataset.typing = "";
    const single = state.selection[0];
    const key = single && store.keys(single.track).find((item) => Curves.sameTime(item[0], single.time));
    if (!key) return;
    try {
      if (name === "emotion") changeValue(single, [input.value, key[1] ? key[1][1] : 0.7]);
      else if (input.value.trim() === "") {
        if (name === "value") changeValue(single, null);
      } else if (name === "value") {
        const number = Number(input.value);
        changeValue(single, single.track === "emotion" ? [key[1] ? key[1][0] : "happy", number] : number);
      } else {
        const frame = store.clampFrame(name === "frame" ? Number(input.value) : Number(input.value) * FPS);
        const result = store.moved(state.tracks, [single], frame - Curves.frameOf(key[0]));
        store.edit("move", result.tracks, { selection: result.selection });
      }
      say("");
    } catch (error) {
      say(error.message, true);
    }
    inspector();
  }

  function changeValue({ track, time }, value) {
    store.editTrack("value", track, Curves.put(store.keys(track), time, Curves.check(track, value)));
  }

  TRACKS.forEach(buildLane);
  for (const preset of Presets.LIST) {
    part("presets").append(make("button", { type: "button", class: "tl-chip", "data-preset": preset.id, title: preset.tip }, preset.label));
  }
  for (const name of EMOTIONS) field("emotion").append(make("option", { value: name }, name));
  for (const name of ["time", "frame", "value", "emotion"]) {
    field(name).addEventListener("input", () => (field(name).dataset.typing = "yes"));
    field(name).addEventListener("change", () => commitField(name));
    field(name).addEventListener("blur", () => (field(name).dataset.typing = ""));
  }

  return { part, button, lanes, say, describe, readouts, layout, inspector };
}
