// View: which stretch of time is shown, and what must be painted again. Painting happens once per animation frame.
function createView(root, panel, store) {
  const { state } = store;
  const MAX_SCALE = 40 * FPS; // pixels per second: 40 pixels a frame
  const view = { start: 0, scale: 60, width: 0 };
  const dirty = new Set();
  let theme = null;
  let whole = true; // show the whole take until somebody zooms
  let pending = 0;
  let hover = { track: null, time: null };

  function readTheme() {
    const style = getComputedStyle(root);
    const colour = (name) => style.getPropertyValue(`--tl-${name}`).trim();
    theme = {
      font: style.fontFamily, text: colour("text"), subdued: colour("subdued"), line: colour("line"), grid: colour("grid"),
      background: colour("background"), wave: colour("wave"), applied: colour("applied-colour"), outside: colour("outside"),
      tracks: Object.fromEntries(TRACKS.map((track) => [track.name, colour(track.name)])),
      emotions: Object.fromEntries(EMOTIONS.map((name) => [name, colour(`emotion-${name}`)])),
    };
    invalidate("all");
  }

  const room = () => Math.max(1, view.width - 2 * PAD);
  const fitScale = () => room() / store.contentSeconds();
  const visible = () => room() / view.scale;

  function clampView() {
    view.scale = Math.min(Math.max(view.scale, fitScale()), MAX_SCALE);
    view.start = Math.min(Math.max(0, view.start), Math.max(0, store.contentSeconds() - visible()));
    invalidate("all");
  }

  function fit() {
    whole = true;
    view.start = 0;
    view.scale = fitScale();
    clampView();
  }

  function zoomAt(factor, x = view.width / 2) {
    const time = timeAt(view, x);
    view.scale = Math.min(Math.max(view.scale * factor, fitScale()), MAX_SCALE);
    whole = view.scale <= fitScale() * 1.0001;
    view.start = time - (x - PAD) / view.scale;
    clampView();
  }

  function panBy(pixels) {
    view.start += pixels / view.scale;
    clampView();
  }

  // Brings `frame` into view; while a take streams the view turns like a page.
  function reveal(frame, ahead = 0.05) {
    const time = Curves.timeOf(frame);
    if (time < view.start || time > view.start + visible()) {
      view.start = time - ahead * visible();
      clampView();
    }
  }

  function resize() {
    const width = panel.part("ruler").clientWidth;
    if (!width || width === view.width) return;
    view.width = width;
    if (whole) fit();
    else clampView();
  }

  function invalidate(what) {
    dirty.add(what);
    if (!pending) pending = requestAnimationFrame(paint);
  }

  const heightOf = (name) => (state.collapsed.has(name) ? FOLDED_HEIGHT : OPEN_HEIGHT);

  function paint() {
    pending = 0;
    if (!view.width || !theme || !root.isConnected) return;
    const all = dirty.has("all");
    if (all) {
      Draw.ruler(panel.part("ruler").firstElementChild, view, theme, 26);
      Draw.waveform(panel.part("wave").firstElementChild, view, theme, state, 56);
    }
    for (const [name, lane] of panel.lanes) {
      if (!all && !dirty.has("lanes") && !dirty.has(name)) continue;
      Draw.lane(lane.canvas, view, theme, state, lane.track, heightOf(name), hover.track === name ? hover.time : null);
    }
    if (fresh && dirty.has("applied")) {
      if (!all && !dirty.has("lanes")) paintApplied(fresh);
      fresh = null;
    }
    if (dirty.has("readouts") || all) panel.readouts();
    placeOverlay();
    dirty.clear();
  }

  function placeOverlay() {
    const playhead = panel.part("playhead");
    const x = xOf(view, Curves.timeOf(state.playhead));
    playhead.style.transform = `translateX(${x}px)`;
    playhead.hidden = x < 0 || x > view.width;
    const range = panel.part("range");
    range.hidden = !state.range;
    if (state.range) {
      const [left, right] = state.range.map((frame) => xOf(view, Curves.timeOf(frame)));
      range.style.transform = `translateX(${left}px)`;
      range.style.width = `${Math.max(2, right - left)}px`;
    }
    const total = store.contentSeconds();
    const thumb = panel.part("thumb");
    thumb.style.left = `${(100 * view.start) / total}%`;
    thumb.style.width = `${Math.min(100, (100 * visible()) / total)}%`;
    panel.part("scroll").classList.toggle("tl-whole", visible() >= total * 0.999);
  }

  // Applied values go on top of what is there, those of several frames at once: a lane that is touched is a canvas that
  // the browser must show anew, 25 times a second for ten lanes while a take runs.
  const APPLIED_MS = 120;
  let fresh = null; // [first, last] frame not painted yet
  let freshTimer = 0;
  function appliedAt(frame) {
    fresh = fresh ? [Math.min(fresh[0], frame), Math.max(fresh[1], frame)] : [frame, frame];
    if (!freshTimer) freshTimer = setTimeout(() => { freshTimer = 0; invalidate("applied"); }, APPLIED_MS);
  }

  function paintApplied([first, last]) {
    for (const [name, { canvas, track }] of panel.lanes) {
      const values = state.applied[name];
      const from = Math.max(first, Math.floor(timeAt(view, 0) * FPS));
      const to = Math.min(last, Math.ceil(timeAt(view, view.width) * FPS));
      if (!values || dirty.has(name) || !values.slice(from, to + 1).some((value) => value !== null)) continue;
      Draw.appliedDots(canvas.getContext("2d"), view, theme, track, values, from, to, heightOf(name));
    }
  }

  function setHover(track, time) {
    if (hover.track === track && hover.time === time) return;
    for (const name of new Set([hover.track, track])) if (name) invalidate(name);
    hover = { track, time };
  }

  const watcher = new ResizeObserver(resize);
  watcher.observe(panel.part("ruler"));
  const themeWatcher = new MutationObserver(readTheme);
  for (const node of [document.documentElement, document.body]) themeWatcher.observe(node, { attributes: true, attributeFilter: ["class"] });

  return {
    view, fit, zoomAt, panBy, reveal, resize, invalidate, appliedAt, setHover, heightOf, readTheme, visible,
    refit: () => (whole ? fit() : clampView()),
    dispose() {
      watcher.disconnect();
      themeWatcher.disconnect();
      cancelAnimationFrame(pending);
      clearTimeout(freshTimer);
    },
  };
}
