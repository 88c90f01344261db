// Actions: the toolbar's buttons, and controls files. Files are read and written by eartalking.controls on the server, so
// that page and command line accept the same and say the same.
function createActions(root, panel, store, viewer, api, server) {
  const { state } = store;
  const MAX_BYTES = 8 * 2 ** 20;
  const file = panel.part("file");

  async function load(chosen) {
    if (!chosen) return;
    if (chosen.size > MAX_BYTES) {
      panel.say(`${chosen.name}: larger than 8 MB, which no controls file needs`, true);
      return;
    }
    panel.say(`Reading ${chosen.name} ...`);
    try {
      const address = await new Promise((resolve, reject) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result);
        reader.onerror = () => reject(new Error(`${chosen.name}: the browser cannot read it`));
        reader.readAsDataURL(chosen);
      });
      const answer = await server.read_controls({ name: chosen.name, content: address.slice(address.indexOf(",") + 1) });
      if (answer.error) throw new Error(answer.error);
      api.setControls(answer.tracks, { reason: "load", quiet: false });
      const count = Object.values(answer.tracks).reduce((sum, keys) => sum + keys.length, 0);
      panel.say(`Loaded ${chosen.name}: ${count} keyframes on ${Object.keys(answer.tracks).length} tracks`);
    } catch (error) {
      panel.say(error.message || String(error), true);
    }
  }

  async function save(kind) {
    try {
      const answer = await server.write_controls({ tracks: state.tracks, kind });
      if (answer.error) throw new Error(answer.error);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([answer.text], { type: kind === "json" ? "application/json" : "text/csv" }));
      link.download = `controls.${kind}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      panel.say(`Saved controls.${kind}`);
    } catch (error) {
      panel.say(error.message || String(error), true);
    }
  }

  function foldAll() {
    const open = state.collapsed.size > 0;
    for (const { name } of TRACKS) store.toggleLane(name, open);
  }

  function help(button) {
    const box = panel.part("help");
    box.hidden = !box.hidden;
    button.setAttribute("aria-expanded", String(!box.hidden));
  }

  const actions = {
    undo: () => store.undo(),
    redo: () => store.redo(),
    "zoom-in": () => viewer.zoomAt(1.6),
    "zoom-out": () => viewer.zoomAt(1 / 1.6),
    fit: () => viewer.fit(),
    fold: foldAll,
    load: () => file.click(),
    "save-json": () => save("json"),
    "save-csv": () => save("csv"),
    help,
    add: () => {
      store.toggleLane(state.active, true);
      store.add(state.active, state.playhead);
    },
    release: () => store.release(),
    delete: () => store.removeSelected(),
  };

  root.addEventListener("click", (event) => {
    const preset = event.target.closest("[data-preset]");
    if (preset) api.insertPreset(preset.dataset.preset);
    const button = event.target.closest("[data-do]");
    if (button && !button.disabled) actions[button.dataset.do](button);
  });
  file.addEventListener("change", () => {
    load(file.files[0]);
    file.value = "";
  });
  root.addEventListener("dragover", (event) => event.preventDefault());
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    load(event.dataTransfer.files[0]);
  });
}
