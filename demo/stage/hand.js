// The hand of a viewer who steers while many frames lie ahead, without page, sound or network: all that it asks for is
// gathered and handed over now and then, and one can tell when it rests. Milliseconds come in. `window.EARHand`.
(() => {
  if (window.EARHand) return;

  class EARHand {
    static EVERY = 250;     // between two times that frames are made anew; a hand cannot tell it from at once
    static REST = 600;      // without a movement
    static PATIENCE = 4000; // after which what was asked for last counts as lost

    constructor() { this.clear(); }

    // Nothing was asked for.
    clear() { this.tracks = null; this.plan = null; this.since = 0; this.moved = -Infinity; this.handed = -Infinity; this.awaits = false; }

    // It moves these controls now; of each the latest value counts.
    move(tracks, now) { this.begin(now); this.tracks = { ...this.tracks, ...tracks }; this.moved = now; }

    // It edits the timeline, which is to be followed from now on.
    edit(controls, now) { this.begin(now); this.plan = controls; }

    begin(now) { if (!this.asks) this.since = now; }
    get asks() { return this.tracks !== null || this.plan !== null; }

    // Whether it is time to hand over what was gathered: not before what was asked for last can be seen, or none ever would.
    due(now) { return this.asks && now - this.handed >= (this.awaits ? EARHand.PATIENCE : EARHand.EVERY); }

    // What was gathered ({tracks, plan, since}); from now on it awaits an answer.
    take(now) {
      const { tracks, plan, since } = this;
      this.tracks = this.plan = null;
      this.handed = now; this.awaits = true;
      return { tracks, plan, since };
    }

    // What was handed over can be seen, or changes nothing.
    answered() { this.awaits = false; }

    rests(now) {
      if (this.awaits && now - this.handed >= EARHand.PATIENCE) this.awaits = false;
      return !this.asks && !this.awaits && now - this.moved >= EARHand.REST;
    }

    // Milliseconds until anything of this may have changed by itself.
    wait(now) {
      if (this.asks) return Math.max(0, this.handed + (this.awaits ? EARHand.PATIENCE : EARHand.EVERY) - now);
      return Math.max(0, (this.awaits ? this.handed + EARHand.PATIENCE : this.moved + EARHand.REST) - now);
    }
  }

  window.EARHand = EARHand;
})();
