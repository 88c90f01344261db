// Presets: gestures that can be put at the playhead or over the selected stretch of time. Shapes are in seconds and in the
// track's own unit, as offsets from what the track does there (a released track counts as neutral).
const Presets = (() => {
  const LIST = [
    { id: "nod", label: "Nod", tip: "Pitch down and up, 0.8 s" },
    { id: "shake", label: "Shake", tip: "Yaw left and right, 1.0 s" },
    { id: "blink", label: "Quick blink", tip: "Both eyes: there is one blink track, so one eye alone cannot wink" },
    { id: "smile", label: "Smile on a word", tip: "Over the selected stretch, or the word under the playhead in the waveform" },
    { id: "look", label: "Look away", tip: "Gaze and head aside and back, 1.4 s" },
  ];

  const GESTURES = {
    nod: { seconds: 0.8, tracks: { pitch: [[0, 0], [0.2, -9], [0.45, 3], [0.65, -4], [1, 0]] } },
    shake: { seconds: 1.0, tracks: { yaw: [[0, 0], [0.18, -10], [0.45, 10], [0.7, -7], [0.88, 4], [1, 0]] } },
    blink: { seconds: 0.28, tracks: { blink: [[0, 0], [0.4, 1], [0.58, 1], [1, 0]] } },
    smile: { seconds: 0.6, lead: 0.16, tail: 0.24, tracks: { smile: [[0, 0], ["lead", 0.75], ["tail", 0.75], [1, 0]] } },
    look: {
      seconds: 1.4,
      tracks: {
        gaze_yaw: [[0, 0], [0.12, 18], [0.78, 18], [1, 0]],
        gaze_pitch: [[0, 0], [0.12, -4], [0.78, -4], [1, 0]],
        yaw: [[0, 0], [0.28, 7], [0.72, 7], [1, 0]],
      },
    },
  };

  // The stretch of voice around `frame`: [first, last] frames of the loud island there (or the next one within 0.6 s).
  function wordAt(waveform, duration, frame) {
    if (!waveform.length || !duration) return null;
    const perFrame = waveform.length / (duration * FPS);
    const loud = (at) => waveform[Math.min(waveform.length - 1, Math.floor(at))] ?? 0;
    const sorted = [...waveform].sort((a, b) => a - b);
    const threshold = 0.25 * sorted[Math.floor(sorted.length * 0.9)];
    if (threshold <= 0) return null;
    const limit = Math.min(waveform.length - 1, (frame + 0.6 * FPS) * perFrame);
    let start = frame * perFrame;
    while (start < limit && loud(start) < threshold) start += 1;
    if (loud(start) < threshold) return null;
    let end = start;
    while (start > 0 && loud(start - 1) >= threshold) start -= 1;
    while (end < waveform.length - 1 && loud(end + 1) >= threshold) end += 1;
    return [Math.round(start / perFrame), Math.max(Math.round(start / perFrame) + 2, Math.round((end + 1) / perFrame))];
  }

  // Where the preset goes: the selected range, a word, or its own length from the playhead; [first, last] frames.
  function span(id, state) {
    const gesture = GESTURES[id];
    if (state.range) return state.range;
    if (id === "smile") {
      const word = wordAt(state.waveform, state.duration, state.playhead);
      if (word) return word;
    }
    const frames = Math.round(gesture.seconds * FPS);
    const first = Math.max(0, Math.min(state.playhead, Math.round(state.duration * FPS) - 1 - frames)); // ends within the take
    return [first, first + frames];
  }

  // {tracks, span, touched}: the tracks with the preset in them, the frames it took and the tracks it changed.
  function apply(id, state) {
    const gesture = GESTURES[id];
    let [first, last] = span(id, state);
    if (gesture.lead) {
      first = Math.max(0, first - Math.round(gesture.lead * FPS));
      last = last + Math.round(gesture.tail * FPS);
    }
    const tracks = { ...state.tracks };
    for (const [name, shape] of Object.entries(gesture.tracks)) {
      const lead = gesture.lead ? (gesture.lead * FPS) / (last - first) : 0;
      const tail = gesture.tail ? 1 - (gesture.tail * FPS) / (last - first) : 1;
      const points = [];
      for (const [part, offset] of shape) {
        const share = part === "lead" ? Math.min(lead, 0.45) : part === "tail" ? Math.max(tail, 0.55) : part;
        const frame = first + Math.round(share * (last - first));
        if (!points.length || frame > points[points.length - 1][0]) points.push([frame, offset]);
        else points[points.length - 1] = [frame, offset];
      }
      tracks[name] = Curves.gesture(name, tracks[name] || [], points);
    }
    return { tracks, span: [first, last], touched: Object.keys(gesture.tracks) };
  }

  return { LIST, apply, wordAt };
})();
