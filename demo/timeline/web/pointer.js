// Pointer: mouse, pen and touch on ruler, waveform, lanes and scroll bar, all through pointer events.
function createPointer(panel, store, viewer, seek) {
  const { state } = store;
  const { view } = viewer;
  const DOUBLE_MS = 500;
  const touches = new Map(); // pointers that are down on a lane, for pinching
  let pinch = null;
  let handling = null; // what the first finger is doing
  let lastTap = { at: -DOUBLE_MS, x: 0, y: 0, name: "" };
  let lastType = "mouse";

  const place = (event, node) => {
    const box = node.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  // The keyframe of a lane nearest to a point, within reach of a finger or a mouse.
  function hit(name, x, y, coarse) {
    const height = viewer.heightOf(name);
    const track = Curves.byName.get(name);
    const reach = coarse ? 24 : 11;
    let best = null;
    let least = reach;
    for (const [time, value] of store.keys(name)) {
      const dx = Math.abs(xOf(view, time) - x);
      if (dx > reach) continue;
      const dy = height > FOLDED_HEIGHT ? Math.abs(Draw.markerY(track, value, height) - y) : 0;
      const distance = Math.hypot(dx, dy);
      if (distance <= least) [best, least] = [{ track: name, time, value }, distance];
    }
    return best;
  }

  // Follows one pointer until it goes up; `move` and `up` get the event, `cancel` puts things back.
  function follow(event, node, { move, up, cancel }) {
    const id = event.pointerId;
    node.setPointerCapture(id);
    const stop = new AbortController();
    const mine = (handler) => (other) => other.pointerId === id && handler(other);
    const end = (handler) => mine((other) => {
      stop.abort();
      if (handler) handler(other);
    });
    node.addEventListener("pointermove", mine(move), { signal: stop.signal });
    node.addEventListener("pointerup", end(up), { signal: stop.signal });
    node.addEventListener("pointercancel", end(cancel), { signal: stop.signal });
    return () => stop.abort();
  }

  const frameAt = (x) => store.clampFrame(timeAt(view, x) * FPS);

  function onRuler(event) {
    if (event.button) return;
    const ruler = panel.part("ruler");
    const go = (other) => seek(frameAt(place(other, ruler).x), false);
    go(event);
    follow(event, ruler, { move: go, up: (other) => seek(frameAt(place(other, ruler).x), true) });
  }

  function onWave(event) {
    if (event.button) return;
    const wave = panel.part("wave");
    const from = place(event, wave).x;
    const select = (other) => {
      const ends = [frameAt(from), frameAt(place(other, wave).x)].sort((a, b) => a - b);
      store.setRange(ends[1] > ends[0] ? ends : null);
    };
    store.setRange(null);
    follow(event, wave, {
      move: select,
      up: (other) => {
        if (Math.abs(place(other, wave).x - from) < 4) seek(frameAt(from), true);
        else select(other);
        if (state.range) panel.say(`Selected ${Curves.timeOf(state.range[0]).toFixed(2)} to ${Curves.timeOf(state.range[1]).toFixed(2)} s: insert a gesture over it`);
      },
    });
  }

  function startPinch() {
    const points = [...touches.values()];
    pinch = { distance: Math.abs(points[0].x - points[1].x), middle: (points[0].x + points[1].x) / 2 };
  }

  function onPinch() {
    const points = [...touches.values()];
    const distance = Math.abs(points[0].x - points[1].x);
    const middle = (points[0].x + points[1].x) / 2;
    if (pinch.distance > 12 && distance > 12) viewer.zoomAt(distance / pinch.distance, middle);
    viewer.panBy(pinch.middle - middle);
    pinch = { distance, middle };
  }

  function onLane(name, plot, event) {
    if (event.button) return;
    const coarse = event.pointerType !== "mouse";
    const from = place(event, plot);
    lastType = event.pointerType;
    if (coarse) {
      touches.set(event.pointerId, from);
      if (touches.size === 2) {
        if (handling) handling.cancel();
        handling = null;
        startPinch();
      }
    }
    plot.focus({ preventScroll: true });
    const found = hit(name, from.x, from.y, coarse);
    const handlers = pinch ? null : found ? dragKeys(name, plot, from, found, event) : event.shiftKey ? marquee(name, plot, from) : pan(name, plot, from);
    const pinched = pinch !== null;
    if (!pinched) handling = handlers;
    const done = (handler) => (other) => {
      touches.delete(other.pointerId);
      if (handlers && handling === handlers) {
        handler(other);
        handling = null;
      }
      if (touches.size < 2) pinch = null;
    };
    follow(event, plot, {
      move: (other) => {
        if (touches.has(other.pointerId)) touches.set(other.pointerId, place(other, plot));
        if (pinch) onPinch();
        else if (handlers && handling === handlers) handlers.move(other);
      },
      up: done((other) => handlers.up(other)),
      cancel: done(() => handlers.cancel()),
    });
  }

  function dragKeys(name, plot, from, found, event) {
    const already = state.selection.some((item) => item.track === name && Curves.sameTime(item.time, found.time));
    if (event.shiftKey) {
      const others = state.selection.filter((item) => !(item.track === name && Curves.sameTime(item.time, found.time)));
      store.select(already ? others : [...others, { track: name, time: found.time }], name);
    } else if (!already) store.select([{ track: name, time: found.time }], name);
    else store.select(state.selection, name);
    const base = state.tracks;
    const items = state.selection.map((item) => ({ track: item.track, time: item.time }));
    const open = viewer.heightOf(name) > FOLDED_HEIGHT;
    let result = null;
    const move = (other) => {
      const to = place(other, plot);
      if (!result && Math.hypot(to.x - from.x, to.y - from.y) < 4) return;
      const frames = store.clampFrame(Curves.frameOf(found.time) + ((to.x - from.x) / view.scale) * FPS) - Curves.frameOf(found.time);
      result = store.moved(base, items, frames, open ? riseOf(name, found.value, to.y - from.y) : 0, name);
      store.preview(result.tracks, result.selection);
    };
    const back = () => result && store.preview(base, items);
    return {
      move,
      cancel: back,
      up: () => {
        if (!result) return;
        back();
        store.edit("move", result.tracks, { selection: result.selection });
      },
    };
  }

  // How much a vertical drag changes a value; it catches on neutral.
  function riseOf(name, value, pixels) {
    if (value === null) return 0;
    const track = Curves.byName.get(name);
    const height = viewer.heightOf(name);
    const start = Curves.level(value);
    const level = levelAt(track, yOf(track, start, height) + pixels, height);
    const near = Math.abs(yOf(track, level, height) - yOf(track, track.neutral, height)) < 3.5;
    return (near ? track.neutral : Math.min(Math.max(level, track.low), track.high)) - start;
  }

  function pan(name, plot, from) {
    let last = from.x;
    let moved = false;
    return {
      move: (other) => {
        const x = place(other, plot).x;
        if (!moved && Math.abs(x - from.x) < 5) return;
        moved = true;
        viewer.panBy(last - x);
        last = x;
      },
      cancel: () => {},
      up: (other) => {
        if (moved) return;
        const now = other.timeStamp;
        const near = lastTap.name === name && Math.hypot(lastTap.x - from.x, lastTap.y - from.y) < 24;
        if (other.pointerType !== "mouse" && near && now - lastTap.at < DOUBLE_MS) {
          lastTap = { at: -DOUBLE_MS, x: 0, y: 0, name: "" };
          addAt(name, from);
          return;
        }
        lastTap = { at: now, x: from.x, y: from.y, name };
        store.select([], name);
      },
    };
  }

  function addAt(name, { x, y }) {
    const track = Curves.byName.get(name);
    const frame = frameAt(x);
    const inForce = Curves.valueAt(name, store.keys(name), frame);
    let value;
    if (viewer.heightOf(name) > FOLDED_HEIGHT) {
      const level = Curves.fit(name, levelAt(track, y, OPEN_HEIGHT));
      value = name === "emotion" ? [inForce ? inForce[0] : "happy", level] : level;
    }
    store.toggleLane(name, true);
    store.add(name, frame, value);
  }

  function marquee(name, plot, from) {
    return {
      move: (other) => {
        const ends = [timeAt(view, from.x), timeAt(view, place(other, plot).x)].sort((a, b) => a - b);
        const inside = store.keys(name).filter(([time]) => time >= ends[0] && time <= ends[1]);
        store.select(inside.map(([time]) => ({ track: name, time })), name);
        store.setRange([store.clampFrame(ends[0] * FPS), store.clampFrame(ends[1] * FPS)]);
      },
      cancel: () => store.setRange(null),
      up: () => store.setRange(null),
    };
  }

  function onWheel(event) {
    const rows = panel.part("ruler");
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      viewer.zoomAt(Math.exp(-event.deltaY * 0.004), place(event, rows).x);
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      viewer.panBy(event.shiftKey && !event.deltaX ? event.deltaY : event.deltaX);
    }
  }

  function onScrollBar(event) {
    const bar = panel.part("scroll");
    const ratio = () => store.contentSeconds() * (view.scale / bar.clientWidth);
    const from = place(event, bar).x;
    if (event.target === bar) viewer.panBy((from - bar.clientWidth * ((view.start + viewer.visible() / 2) / store.contentSeconds())) * ratio());
    let last = from;
    follow(event, bar, {
      move: (other) => {
        const x = place(other, bar).x;
        viewer.panBy((x - last) * ratio());
        last = x;
      },
    });
  }

  // The focus ring is for the keyboard.
  const root = panel.part("rows").parentElement;
  root.addEventListener("pointerdown", () => root.classList.add("tl-pointing"), { capture: true });
  root.addEventListener("keydown", () => root.classList.remove("tl-pointing"), { capture: true });
  panel.part("ruler").addEventListener("pointerdown", onRuler);
  panel.part("wave").addEventListener("pointerdown", onWave);
  panel.part("scroll").addEventListener("pointerdown", onScrollBar);
  panel.part("rows").addEventListener("wheel", onWheel, { passive: false });
  for (const [name, { plot }] of panel.lanes) {
    plot.addEventListener("pointerdown", (event) => onLane(name, plot, event));
    plot.addEventListener("dblclick", (event) => {
      const at = place(event, plot);
      if (lastType === "mouse" && !hit(name, at.x, at.y, false)) addAt(name, at); // fingers' taps are counted above
    });
    plot.addEventListener("pointermove", (event) => {
      if (event.buttons || event.pointerType !== "mouse") return;
      const { x, y } = place(event, plot);
      const found = hit(name, x, y, false);
      viewer.setHover(found ? name : null, found ? found.time : null);
      plot.classList.toggle("tl-grabbable", Boolean(found));
    });
    plot.addEventListener("pointerleave", () => viewer.setHover(null, null));
    // A finger that lands on a keyframe drags it; anywhere else it may scroll the page (touch-action: pan-y).
    plot.addEventListener("touchstart", (event) => {
      const touch = event.touches[0];
      const { x, y } = place(touch, plot);
      if (event.touches.length > 1 || hit(name, x, y, true)) event.preventDefault();
    }, { passive: false });
  }
}
