// Curves: what a control track is and how it is changed. Pure functions, the same semantics as eartalking.controls:
// linear between numbers, stepped emotion, held after the last keyframe, released before the first and after a null.
//
// TRACKS (written before this file by demo/timeline/component.py): [{name, label, group, unit, low, high, neutral, step, ...}].
// A track's keyframes are an array of [seconds, value] in increasing time; value is a number, [emotion, intensity] or
// null (released). Arrays are never changed in place, so that an undo step is only a reference.
const Curves = (() => {
  const TOLERANCE = 1e-6; // seconds, as in eartalking.controls
  const byName = new Map(TRACKS.map((track) => [track.name, track]));

  const timeOf = (frame) => frame / FPS;
  const frameOf = (time) => Math.round(time * FPS);
  // The first frame in which a keyframe at `time` is in force.
  const effectiveFrame = (time) => Math.max(0, Math.ceil((time - TOLERANCE) * FPS));

  // Number of keyframes at or before `time`.
  function countUntil(keys, time) {
    let low = 0;
    let high = keys.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (time < keys[middle][0]) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  // The value in force at `time` (seconds): number, [emotion, intensity], or null where released.
  function valueAtTime(name, keys, time) {
    const index = countUntil(keys, time + TOLERANCE) - 1;
    if (index < 0) return null;
    const [start, value] = keys[index];
    if (name === "emotion" || value === null || index + 1 === keys.length) return value;
    const [end, target] = keys[index + 1];
    if (target === null) return value;
    const between = value + ((target - value) * (time - start)) / (end - start);
    return Math.min(Math.max(between, Math.min(value, target)), Math.max(value, target));
  }

  const valueAt = (name, keys, frame) => valueAtTime(name, keys, timeOf(frame));

  const sameValue = (a, b) => a === b || (Array.isArray(a) && Array.isArray(b) && a[0] === b[0] && a[1] === b[1]);
  const sameTime = (a, b) => Math.abs(a - b) <= TOLERANCE;

  // The number on a lane's vertical axis: an emotion's is its intensity. Null where released.
  const level = (value) => (Array.isArray(value) ? value[1] : value);
  const withLevel = (value, number) => (Array.isArray(value) ? [value[0], number] : number);

  // `number` inside the track's range and on its step.
  function fit(name, number) {
    const { low, high, step } = byName.get(name);
    const rounded = Math.round(number / step) * step;
    return Number(Math.min(Math.max(rounded, low), high).toFixed(6)) + 0; // + 0 turns -0 into 0
  }

  const clamp = (name, number) => Math.min(Math.max(number, byName.get(name).low), byName.get(name).high);

  // `value` in canonical form; throws an Error that names the track.
  function check(name, value) {
    const track = byName.get(name);
    if (!track) throw new Error(`unknown track "${name}"; known tracks: ${TRACKS.map((t) => t.name).join(", ")}`);
    if (value === null) return null;
    let number = value;
    if (name === "emotion") {
      if (!Array.isArray(value) || value.length !== 2) throw new Error("emotion must be [name, intensity 0..1]");
      if (!EMOTIONS.includes(value[0])) throw new Error(`unknown emotion "${value[0]}"; known: ${EMOTIONS.join(", ")}`);
      number = value[1];
    }
    if (typeof number !== "number" || !Number.isFinite(number) || number < track.low || number > track.high) {
      throw new Error(`${name} must be a number in ${track.low}..${track.high}, not ${JSON.stringify(number)}`);
    }
    return name === "emotion" ? [value[0], number] : number;
  }

  // A controls document or its tracks, checked; throws an Error that names the track and the keyframe (from 1).
  function checkTracks(document) {
    const tracks = document && document.tracks !== undefined ? document.tracks : document;
    if (!tracks || typeof tracks !== "object" || Array.isArray(tracks)) {
      throw new Error('expected {"fps": 25, "tracks": {track: [[seconds, value], ...]}}');
    }
    const checked = {};
    for (const [name, keys] of Object.entries(tracks)) {
      check(name, null);
      if (!Array.isArray(keys)) throw new Error(`track ${name}: expected a list of [seconds, value]`);
      checked[name] = keys.map((key, index) => {
        const where = `track ${name}, keyframe ${index + 1}`;
        if (!Array.isArray(key) || key.length !== 2) throw new Error(`${where}: expected [seconds, value]`);
        const time = key[0];
        if (typeof time !== "number" || !Number.isFinite(time) || time < 0) {
          throw new Error(`${where}: the time must be a finite number of seconds >= 0`);
        }
        if (index && time <= keys[index - 1][0]) throw new Error(`${where}: time ${time} does not follow ${keys[index - 1][0]}`);
        try {
          return [time, check(name, key[1])];
        } catch (error) {
          throw new Error(`${where}: ${error.message}`);
        }
      });
    }
    return checked;
  }

  // Keyframes with one more, which replaces any at the same time.
  function put(keys, time, value) {
    const others = keys.filter((key) => !sameTime(key[0], time));
    others.splice(countUntil(others, time), 0, [time, value]);
    return others;
  }

  const without = (keys, times) => keys.filter((key) => !times.some((time) => sameTime(time, key[0])));

  // Keyframes with those at `times` moved by whole frames and, in levels, by `rise`; what they land on gives way.
  function shift(name, keys, times, frames, rise) {
    const moved = keys.filter((key) => times.some((time) => sameTime(time, key[0])));
    let result = without(keys, times);
    const landed = [];
    for (const [time, value] of moved) {
      const to = frames ? timeOf(Math.max(0, frameOf(time) + frames)) : time;
      const lifted = value === null || !rise ? value : withLevel(value, fit(name, level(value) + rise));
      result = put(result, to, lifted);
      landed.push(to);
    }
    return { keys: result, times: landed };
  }

  // Keyframes without those after frame `first - 1` and before frame `last + 1`.
  const cut = (keys, first, last) =>
    keys.filter(([time]) => !(time > timeOf(first - 1) + TOLERANCE && time < timeOf(last + 1) - TOLERANCE));

  // Keyframes in which `value` is in force from `frame` until the track's next keyframe (with `latch`: for good), and no
  // other frame changes. Live steering acts as a step, so where a ramp would come of it the values beside it are pinned.
  function record(name, keys, frame, value, latch = false) {
    const before = frame > 0 ? valueAt(name, keys, frame - 1) : null;
    const ahead = countUntil(keys, timeOf(frame) + TOLERANCE);
    const current = ahead ? keys[ahead - 1][1] : null;
    const next = latch ? undefined : keys[ahead];
    let result = latch ? keys.slice(0, ahead) : keys;
    result = result.filter(([time]) => !(time > timeOf(frame - 1) + TOLERANCE && time <= timeOf(frame) + TOLERANCE));
    if (name !== "emotion") {
      if (before !== null) result = put(result, timeOf(frame - 1), before);
      const follower = keys[ahead + 1];
      // A hold that an earlier step has pinned one frame before the next keyframe belongs to that step.
      const pinned = next && follower && next[1] !== null && next[1] === current && frameOf(follower[0]) - frameOf(next[0]) <= 1;
      if (pinned) result = without(result, [next[0]]);
      const target = pinned ? follower : next;
      const end = target ? effectiveFrame(target[0]) - 1 : frame;
      if (value !== null && target && target[1] !== null && target[1] !== value && end > frame) {
        result = put(result, timeOf(end), value);
      }
    }
    return tidy(name, put(result, timeOf(frame), value), frame - 1);
  }

  // Keyframes with a gesture played between two frames. `shape` is [[frame, offset from what the track does], ...] in
  // increasing order; a released track starts from its neutral value and is released again after the gesture. No frame
  // outside the gesture changes.
  function gesture(name, keys, shape) {
    const { neutral } = byName.get(name);
    const first = shape[0][0];
    const last = shape[shape.length - 1][0];
    const before = first > 0 ? valueAt(name, keys, first - 1) : null;
    const after = valueAt(name, keys, last + 1);
    let result = cut(keys, first, last);
    if (before !== null) result = put(result, timeOf(first - 1), before);
    for (const [frame, offset] of shape) {
      result = put(result, timeOf(frame), clamp(name, (valueAt(name, keys, frame) ?? neutral) + offset));
    }
    return tidy(name, tidy(name, put(result, timeOf(last + 1), after), last + 1), first - 1);
  }

  // Keyframes without the one at `frame` if the ones around it imply it.
  function tidy(name, keys, frame) {
    const index = keys.findIndex((key) => sameTime(key[0], timeOf(frame)));
    if (index < 1) return keys;
    const [time, value] = keys[index];
    const previous = keys[index - 1][1];
    const next = index + 1 < keys.length ? keys[index + 1][1] : undefined;
    const flat = sameValue(value, previous) && (next === undefined || next === null || sameValue(next, value) || name === "emotion");
    const bothReleased = value === null && previous === null;
    return flat || bothReleased ? keys.filter((key) => key[0] !== time) : keys;
  }

  // Keyframes without those inside a dense run (one a frame, as a take's log has them) that its two ends imply to the last
  // bit: a curve that was drawn with few keyframes comes back from the log with few.
  function thin(name, keys) {
    if (name === "emotion") return keys;
    const near = (a, b) => b !== undefined && b[0] - a[0] <= 1 / FPS + TOLERANCE && a[1] !== null && b[1] !== null;
    const kept = [];
    for (let start = 0; start < keys.length; ) {
      kept.push(keys[start]);
      let end = start + 1;
      if (near(keys[start], keys[end])) {
        const slope = (keys[end][1] - keys[start][1]) / (keys[end][0] - keys[start][0]);
        const onLine = (key) => Math.abs(keys[start][1] + slope * (key[0] - keys[start][0]) - key[1]) < 1e-9;
        while (near(keys[end], keys[end + 1]) && onLine(keys[end + 1])) end += 1;
        const line = [keys[start], keys[end]];
        const exact = keys.slice(start + 1, end).every((key) => valueAtTime(name, line, key[0]) === key[1]);
        if (!exact) end = start + 1;
      }
      start = end;
    }
    return kept;
  }

  const lastTime = (tracks) => Math.max(0, ...Object.values(tracks).map((keys) => (keys.length ? keys[keys.length - 1][0] : 0)));

  return { byName, timeOf, frameOf, countUntil, valueAt, sameTime, level, fit, check, checkTracks, put, without, shift, record, gesture, thin, lastTime };
})();
