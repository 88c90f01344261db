// Time and buffer of a player, without page, sound or network: which frame is due, and when enough is there to begin.
// Seconds and frames come in, frames and words go out. `window.EARClock`, `window.EARBuffer`.
(() => {
  if (window.EARClock) return;
  const FPS = 25;

  // The clock of a picture that follows sound. A sound device counts in blocks, says now this and now that about its
  // delay, and stands still when it runs dry; the picture goes on smoothly, and never back.
  class EARClock {
    static FOLLOW = 0.05;  // share of a deviation that is taken over at a reading
    static BREAK = 0.1;    // seconds; a larger deviation is no jitter: the sound stood still, or jumped
    static SLEW = 0.002;   // seconds by which the delay may change at a reading

    constructor() { this.ahead = null; this.delay = null; this.origin = 0; this.latest = -Infinity; }

    // Frame `frame` leaves for the sound device at `seconds`. What was shown later than it stays until it is due.
    start(frame, seconds) { this.origin = seconds - frame / FPS; this.ahead = null; }

    // This frame was shown before it was due.
    reach(frame) { this.latest = Math.max(this.latest, frame); }

    // The viewer goes elsewhere: the next frame may lie before the last.
    jump() { this.latest = -Infinity; }

    // The frame, with its fraction, that is due at `seconds` of the sound's clock, at `wall` seconds, `delay` after it left.
    due(seconds, wall, delay) {
      const ahead = seconds - wall;
      const off = this.ahead === null ? Infinity : ahead - this.ahead;
      this.ahead = Math.abs(off) > EARClock.BREAK ? ahead : this.ahead + EARClock.FOLLOW * off;
      const change = this.delay === null ? 0 : Math.max(-EARClock.SLEW, Math.min(EARClock.SLEW, delay - this.delay));
      this.delay = this.delay === null ? delay : this.delay + change;
      this.latest = Math.max(this.latest, (wall + this.ahead - this.delay - this.origin) * FPS);
      return this.latest;
    }
  }

  // How many frames must lie ahead before a take plays (on), so that it need not stop again.
  const EARBuffer = {
    FEWEST: 3,      // frames; more would only delay steering
    UNEVEN: 12,     // frames that a machine at its limit needs besides, because its frames come unevenly
    AT_EASE: 1.15,  // times the speed of the voice: from there on nothing is needed besides
    DOUBT: 0.95,    // of the measured speed is counted on
    STEERED: 125,   // frames that shall play without a stall once somebody has steered far ahead of the machine

    // With `left` frames still to be seen, at `speed` frames a second (null: nobody knows yet), after so many stalls.
    needed(left, speed, stalls) {
      const times = speed === null ? this.AT_EASE : speed / FPS;
      const falling = left * Math.max(0, 1 - this.DOUBT * times);
      const strain = Math.max(0, Math.min(1, (this.AT_EASE - times) / (this.AT_EASE - 1)));
      const uneven = this.FEWEST + (this.UNEVEN - this.FEWEST) * strain;
      const burnt = stalls ? FPS * 2 ** Math.min(stalls - 1, 4) : 0; // one long pause is better than many short ones
      return Math.min(left, Math.ceil(falling + Math.max(uneven, burnt) - 1e-6));
    },

    // The same for a viewer who would rather not wait: a second, or the sound would come in shreds.
    soon(left, speed, stalls) { return Math.min(this.needed(left, speed, stalls), FPS); },

    // Whether a machine has to try hard.
    strained(speed) { return speed !== null && speed < this.AT_EASE * FPS; },

    // What a viewer is told who waits `seconds` more; nothing for what nobody notices.
    words(speed, seconds, begun) {
      const rounded = Math.ceil(2 * seconds) / 2;
      if (speed === null || !(rounded > 0.5)) return "";
      const long = rounded > 90 ? `${Math.ceil(seconds / 30) / 2} min` : `${rounded} s`;
      const when = begun ? `going on in ${long}` : `starting ${long} later`;
      const why = Math.round(speed) < FPS ? `This machine makes ${Math.round(speed)} of ${FPS} frames a second` : "The frames come unevenly";
      return `${why}: ${when}.`;
    },

    // The same for a viewer who waits for others.
    place(place, seconds) {
      const when = Number.isFinite(seconds) ? `; about ${Math.max(1, Math.round(seconds))} s` : "";
      return `Others are being served. You are number ${place} in the queue${when}. It starts by itself.`;
    },
  };

  window.EARClock = EARClock;
  window.EARBuffer = EARBuffer;
})();
