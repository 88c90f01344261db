"""The control timeline: keyframes on curves over the voice's waveform, drawn and edited in the browser.

`control_timeline()` makes a `gr.HTML` whose value is a dict; keys that are absent from an update leave what is shown as
it is:

    fps        25
    duration   seconds of the take
    waveform   peaks 0..1, evenly spaced over the duration (about 50 a second; `waveform_peaks` makes them)
    tracks     {track: [[seconds, value], ...]}, the controls file's form (`eartalking.controls`)
    applied    {track: [value per frame]}, the values in force when each frame was made; None where released
    playhead   frame

As the input of a listener the value has only fps, duration, tracks and playhead: waveform and applied are Python's own.

Events, each after the value has been updated (`gr.EventData` has the fields):

    .input     the user changed keyframes: tracks, reason ("add", "move", "value", "release", "delete", "undo", "redo",
    "load"
               or a preset's id), playhead. Once per finished gesture or burst of keys, 0.15 s after it. Live steering
               does not trigger it.
    .seek      the user moved the playhead: frame

In the browser `window.EARTimeline.get(elem_id)` (or `await window.EARTimeline.ready(elem_id)`) has

    setPlayhead(frame)                         frames stream in; turns the page when the playhead leaves it
    setApplied(frame, {track: value})          values in force at that frame, absent tracks released; clearApplied()
    before a new take recordKeyframe(track, frame, value, {latch})   live steering: `value` (null releases) holds from
    `frame` until the track's next
                                               keyframe, or, with latch, for good (later keyframes of the track go).
                                               Earlier frames keep their values. Records that follow each other within
                                               0.9 s are one undo step.
    getControls() / setControls(document)      {"fps", "tracks"}; setControls also takes a JSON text, throws an Error on
    bad
                                               input, is one undo step, and drops keyframes of a frame-by-frame log that
                                               their neighbours imply exactly
    setWaveform(peaks, seconds)
    valuesAt(frame)                            {track: value asked for}
    onEdit(callback) / onSeek(callback)        the user's own changes, without a round trip: callback({tracks, reason}),
                                               callback({frame, settled}); both return a function that ends the
                                               subscription. The same as bubbling DOM events from the component, with
                                               the same in `detail`: `timeline:change`, `timeline:seek`
    insertPreset(id), undo(), redo(), fit(), showError(text), pointOf(track, frame, value), state()
"""

from demo.timeline.component import control_timeline, empty_value
from demo.timeline.files import file_from_tracks, tracks_from_file
from demo.timeline.waveform import waveform_peaks

__all__ = ["control_timeline", "empty_value", "file_from_tracks", "tracks_from_file", "waveform_peaks"]
