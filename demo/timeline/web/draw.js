// Drawing: ruler, waveform and lanes on canvases, one canvas each, sharp at any pixel ratio.
//
// view = {start (seconds at the left edge), scale (pixels per second), width (pixels)}; theme = colours from the style sheet.
const FINGER = window.matchMedia("(pointer: coarse)").matches;
const PAD = 12; // pixels left of second 0, so that a keyframe there can be grabbed
const OPEN_HEIGHT = 88;
const FOLDED_HEIGHT = FINGER ? 44 : 28; // what is touched has 44 pixels

const xOf = (view, time) => PAD + (time - view.start) * view.scale;
const timeAt = (view, x) => view.start + (x - PAD) / view.scale;

// Vertical place of `level` in a lane of this height.
function yOf(track, level, height) {
  const margin = height > FOLDED_HEIGHT ? 12 : 6;
  return margin + ((track.high - level) / (track.high - track.low)) * (height - 2 * margin);
}

function levelAt(track, y, height) {
  const margin = height > FOLDED_HEIGHT ? 12 : 6;
  return track.high - ((y - margin) / (height - 2 * margin)) * (track.high - track.low);
}

const Draw = (() => {
  const STEPS = [0.04, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600];

  function prepare(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    return pen;
  }

  const tickStep = (view, room) => STEPS.find((step) => step * view.scale >= room) ?? 600;

  function clock(time, step) {
    const minutes = Math.floor(time / 60 + 1e-9);
    const seconds = Math.max(0, time - 60 * minutes);
    const digits = step >= 1 ? 0 : step >= 0.2 ? 1 : 2;
    return minutes ? `${minutes}:${seconds.toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}` : `${seconds.toFixed(digits)}s`;
  }

  function eachTick(view, step, visit) {
    const first = Math.max(0, Math.floor(view.start / step));
    for (let index = first; xOf(view, index * step) <= view.width; index++) visit(xOf(view, index * step), index * step);
  }

  function ruler(canvas, view, theme, height) {
    const pen = prepare(canvas, view.width, height);
    const step = tickStep(view, 50);
    const fine = STEPS[Math.max(0, STEPS.indexOf(step) - 1)];
    pen.fillStyle = theme.line;
    if (fine * view.scale >= 6) eachTick(view, fine, (x) => pen.fillRect(Math.round(x), height - 4, 1, 4));
    pen.font = `11px ${theme.font}`;
    pen.textBaseline = "top";
    eachTick(view, step, (x, time) => {
      pen.fillStyle = theme.subdued;
      pen.fillRect(Math.round(x), height - 8, 1, 8);
      const text = clock(time, step);
      if (x + 4 + pen.measureText(text).width <= view.width) pen.fillText(text, Math.round(x) + 4, 5);
    });
  }

  function grid(pen, view, theme, height) {
    pen.fillStyle = theme.grid;
    if (view.scale / FPS >= 9) eachTick(view, 1 / FPS, (x) => pen.fillRect(Math.round(x), 0, 1, height));
    pen.fillStyle = theme.line;
    eachTick(view, tickStep(view, 50), (x) => pen.fillRect(Math.round(x), 0, 1, height));
  }

  function waveform(canvas, view, theme, state, height) {
    const pen = prepare(canvas, view.width, height);
    grid(pen, view, theme, height);
    const middle = height / 2;
    if (!state.waveform.length) {
      pen.fillStyle = theme.subdued;
      pen.font = `12px ${theme.font}`;
      pen.textBaseline = "middle";
      pen.fillText("The voice's waveform appears here", PAD, middle);
      return;
    }
    const perSecond = state.waveform.length / state.duration;
    const bar = Math.max(1, Math.min(3, view.scale / perSecond - 1));
    pen.fillStyle = theme.wave;
    const pitch = Math.max(2, view.scale / perSecond); // pixels per bar; several peaks share one where they are closer
    const from = Math.max(0, timeAt(view, 0));
    const to = Math.min(state.duration, timeAt(view, view.width));
    for (let time = Math.floor((from * view.scale) / pitch) * (pitch / view.scale); time < to; time += pitch / view.scale) {
      const first = Math.max(0, Math.floor(time * perSecond + 1e-6));
      const end = Math.max(first + 1, Math.floor((time + pitch / view.scale) * perSecond + 1e-6));
      let peak = 0;
      for (let index = first; index < end && index < state.waveform.length; index++) peak = Math.max(peak, state.waveform[index]);
      const tall = Math.max(1, peak * (height - 10));
      pen.fillRect(xOf(view, time), middle - tall / 2, bar, tall);
    }
    outside(pen, view, theme, state, height);
  }

  // Time past the end of the take is greyed.
  function outside(pen, view, theme, state, height) {
    const x = xOf(view, state.duration);
    if (x >= view.width) return;
    pen.fillStyle = theme.outside;
    pen.fillRect(x, 0, view.width - x, height);
  }

  // The stretches of a track in view: [{from, to, start, end}], values at both ends; null where released.
  function segments(name, keys, view) {
    const left = Math.max(0, timeAt(view, -PAD));
    const right = timeAt(view, view.width + PAD);
    const list = [];
    let index = Math.max(-1, Curves.countUntil(keys, left) - 1);
    for (; index < keys.length; index++) {
      const from = index < 0 ? 0 : keys[index][0];
      if (from > right) break;
      const to = index + 1 < keys.length ? keys[index + 1][0] : Math.max(right, from);
      const start = index < 0 ? null : keys[index][1];
      const target = index + 1 < keys.length ? keys[index + 1][1] : start;
      const ramp = start !== null && target !== null && name !== "emotion";
      if (to > from) list.push({ from, to, start, end: ramp ? target : start });
    }
    return list;
  }

  function released(pen, view, theme, part, height, open, empty) {
    const left = Math.max(0, xOf(view, part.from));
    const right = Math.min(view.width, xOf(view, part.to));
    if (right <= left) return;
    pen.save();
    pen.beginPath();
    pen.rect(left, 0, right - left, height);
    pen.clip();
    pen.strokeStyle = theme.line;
    pen.setLineDash([2, 5]);
    pen.beginPath();
    pen.moveTo(left, height / 2);
    pen.lineTo(right, height / 2);
    pen.stroke();
    const short = "the model decides";
    const long = `${short} · double ${FINGER ? "tap" : "click"} to add a keyframe`;
    pen.font = `11px ${theme.font}`;
    const text = empty && right - left > pen.measureText(long).width + 60 ? long : short;
    const wide = pen.measureText(text).width;
    if (right - left > wide + 36 && open) {
      const at = left + Math.min((right - left - wide) / 2, 60);
      pen.fillStyle = theme.background;
      pen.fillRect(at - 6, height / 2 - 8, wide + 12, 16);
      pen.fillStyle = theme.subdued;
      pen.textBaseline = "middle";
      pen.fillText(text, at, height / 2);
    }
    pen.restore();
  }

  function asked(pen, view, theme, track, part, height, colour, open) {
    const emotion = track.name === "emotion";
    const shade = emotion ? theme.emotions[part.start[0]] : colour;
    const [left, right] = [xOf(view, part.from), xOf(view, part.to)];
    const [y1, y2] = [yOf(track, Curves.level(part.start), height), yOf(track, Curves.level(part.end), height)];
    const base = yOf(track, track.neutral, height);
    pen.fillStyle = shade;
    pen.globalAlpha = emotion ? 0.28 : 0.13;
    pen.beginPath();
    pen.moveTo(left, base);
    pen.lineTo(left, y1);
    pen.lineTo(right, y2);
    pen.lineTo(right, base);
    pen.fill();
    pen.globalAlpha = 1;
    pen.strokeStyle = shade;
    pen.lineWidth = open ? 2 : 1.5;
    pen.beginPath();
    pen.moveTo(left, y1);
    pen.lineTo(right, y2);
    pen.stroke();
    if (!emotion) return;
    const shown = Math.max(left, 0);
    const name = part.start[0];
    pen.font = `${open ? 12 : 11}px ${theme.font}`;
    if (Math.min(right, view.width) - shown < pen.measureText(name).width + 16) return;
    pen.fillStyle = theme.text;
    pen.textBaseline = "bottom";
    pen.fillText(name, shown + 10, open ? base - 4 : height - 7);
  }

  function scale(pen, view, theme, track, height) {
    pen.fillStyle = theme.grid;
    for (const level of [track.high, track.low]) pen.fillRect(0, Math.round(yOf(track, level, height)), view.width, 1);
    pen.fillStyle = theme.line;
    pen.fillRect(0, Math.round(yOf(track, track.neutral, height)), view.width, 1);
    if (track.name === "emotion" || view.width < 320) return;
    pen.font = `10px ${theme.font}`;
    pen.fillStyle = theme.subdued;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const level of [track.high, track.neutral, track.low]) {
      if (level === track.neutral && track.neutral === track.low) continue;
      pen.fillText(`${level}${track.unit}`.replace("-", "\u2212"), view.width - 4, yOf(track, level, height) - (level === track.neutral ? 6 : 0));
    }
    pen.textAlign = "left";
  }

  function appliedDots(pen, view, theme, track, values, from, to, height) {
    const near = view.scale / FPS;
    pen.fillStyle = theme.applied;
    const size = near >= 5 ? 3 : near >= 3 ? 2 : 1; // so close that dots touch, a thin line inside the thick one
    for (let frame = Math.max(0, from); frame <= to; frame++) {
      const value = values[frame];
      if (value === null || value === undefined) continue;
      const x = xOf(view, frame / FPS);
      const y = yOf(track, Curves.level(value), height);
      pen.fillRect(x - size / 2, y - size / 2, size, size);
    }
  }

  function marker(pen, theme, x, y, value, colour, selected, open) {
    const size = open ? 7 : 4.5;
    pen.lineWidth = selected ? 2.5 : 1.5;
    pen.strokeStyle = selected ? theme.text : theme.background;
    pen.fillStyle = colour;
    pen.beginPath();
    if (value === null) {
      pen.arc(x, y, size, 0, 2 * Math.PI);
      pen.fillStyle = theme.background;
      pen.strokeStyle = selected ? theme.text : colour;
      pen.fill();
      pen.stroke();
      pen.beginPath();
      pen.moveTo(x - size * 0.7, y + size * 0.7);
      pen.lineTo(x + size * 0.7, y - size * 0.7);
      pen.stroke();
      return;
    }
    pen.moveTo(x, y - size);
    pen.lineTo(x + size, y);
    pen.lineTo(x, y + size);
    pen.lineTo(x - size, y);
    pen.closePath();
    pen.fill();
    pen.stroke();
  }

  // Where a keyframe's marker is: a release sits on the lane's middle.
  const markerY = (track, value, height) => (value === null ? height / 2 : yOf(track, Curves.level(value), height));

  function lane(canvas, view, theme, state, track, height, hover) {
    const pen = prepare(canvas, view.width, height);
    const keys = state.tracks[track.name] || [];
    const open = height > FOLDED_HEIGHT;
    const colour = theme.tracks[track.name];
    grid(pen, view, theme, height);
    if (open) scale(pen, view, theme, track, height);
    for (const part of segments(track.name, keys, view)) {
      if (part.start === null) released(pen, view, theme, part, height, open, !keys.length);
      else asked(pen, view, theme, track, part, height, colour, open);
    }
    outside(pen, view, theme, state, height);
    const values = state.applied[track.name];
    if (values) {
      const first = Math.floor(timeAt(view, 0) * FPS) - 1;
      appliedDots(pen, view, theme, track, values, first, Math.min(values.length - 1, Math.ceil(timeAt(view, view.width) * FPS)), height);
    }
    const selected = state.selection.filter((item) => item.track === track.name).map((item) => item.time);
    const dense = keys.length > 40 && (view.scale * (keys[keys.length - 1][0] - keys[0][0])) / keys.length < 5;
    for (const [time, value] of keys) {
      const x = xOf(view, time);
      if (x < -12 || x > view.width + 12) continue;
      const chosen = selected.some((at) => Curves.sameTime(at, time));
      if (dense && !chosen && value !== null) continue; // one per frame: the curve says it all until one zooms in
      const shade = Array.isArray(value) ? theme.emotions[value[0]] : colour;
      marker(pen, theme, x, markerY(track, value, height), value, shade, chosen, open);
      if (hover !== null && Curves.sameTime(hover, time)) {
        pen.strokeStyle = shade;
        pen.globalAlpha = 0.45;
        pen.lineWidth = 4;
        pen.beginPath();
        pen.arc(x, markerY(track, value, height), 10, 0, 2 * Math.PI);
        pen.stroke();
        pen.globalAlpha = 1;
      }
    }
    return pen;
  }

  return { ruler, waveform, lane, appliedDots, markerY };
})();
