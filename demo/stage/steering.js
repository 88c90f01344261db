// Steering of the take that runs: what the viewer asks for goes to the server at once, or by way of the hand.
// Where few frames lie ahead, a change acts on the next one that is made. Where many do, they are made anew from the first
// one that was neither seen nor heard: the take stops there while the hand moves, shows that frame as the hand wants it,
// and goes on when the hand rests. To play on meanwhile, slower than the voice, would cut the sound to shreds.
// `new EARSteering(player)`: of the player, what is used here is `take`, `playing`, `waits`, `playhead` (frame), `send`, `emit`,
// `report`, `tick`, `standAt(frame)` and `drop(frame, frame that is shown as soon as it is there)`.
(() => {
  if (window.EARSteering) return;

  class EARSteering {
    static FEW = 15;       // frames ahead, at most, that a viewer who steers waits for
    static UNEVEN = 4;     // frames by which the picture may run before the sound
    static EDIT_AHEAD = 6; // frames that are played while the server lays out an edited timeline

    constructor(player) { this.player = player; this.hand = new window.EARHand(); this.number = 1; this.clear(); }

    // Nothing is steered any more.
    clear() {
      clearTimeout(this.timer);
      this.hand.clear();
      this.held = -1;            // the frame at which the take waits for the hand; none: -1
      this.changes = new Map();  // message -> when its change was asked for, and the server's number for it
      this.reaching = new Map(); // message -> the frame from which it wants all made anew, and the turn that it is for
      this.turned = 0;           // the latest turn that the server has made
    }

    // From this frame on, what is here is outdated.
    barrier() {
      let first = Infinity;
      for (const reach of this.reaching.values()) first = Math.min(first, reach.first);
      return first;
    }

    // Where the sound stands, and the first frame that was neither seen nor heard.
    standing() { return Math.ceil(Math.min(Math.max(this.player.playhead(), 0), this.player.take.frames.length) - 1e-6); }
    unseen() { return this.held >= 0 ? this.held : Math.max(this.player.take.seen + 1, this.standing()); }
    // Also where the take waits until many are.
    farAhead() { return this.player.waits || this.player.take.frames.length - this.unseen() > EARSteering.FEW; }

    // {track: value, or null to release}, asked for at `asked` ms; whether there is a take that hears of it.
    set(tracks, asked = performance.now()) {
      if (this.player.take.state !== "streaming") return false;
      if (this.held < 0 && !this.hand.asks && !this.farAhead()) return this.ask({ type: "set", tracks }, asked);
      // Who went back to look at something plays on until there.
      if (this.held < 0 && this.unseen() - this.standing() <= EARSteering.UNEVEN) this.hold(this.unseen());
      this.hand.move(tracks, asked);
      this.work();
      return true;
    }

    // The timeline was edited.
    plan(controls) {
      if (this.player.take.state !== "streaming") return false;
      if (this.held < 0 && !this.hand.asks && !this.farAhead()) return this.player.send({ type: "plan", controls });
      this.hand.edit(controls, performance.now());
      this.work();
      return true;
    }

    hold(frame) {
      this.player.standAt(frame);
      this.held = frame;
      this.player.report(true);
      this.player.emit("held", frame);
    }

    // Hands over what the hand asks for; when it rests, the take goes on.
    work() {
      clearTimeout(this.timer);
      if (this.player.take.state !== "streaming") return;
      const moment = performance.now();
      if (this.hand.due(moment)) {
        const { tracks, plan, since } = this.hand.take(moment), first = this.unseen();
        if (plan) this.ask({ type: "plan", controls: plan }, since, first + (this.player.playing ? EARSteering.EDIT_AHEAD : 0));
        if (tracks) this.ask({ type: "set", tracks }, since, first);
      }
      if (!this.hand.rests(moment)) { this.timer = setTimeout(() => this.work(), this.hand.wait(moment) + 1); return; }
      if (this.held < 0) return;
      this.held = -1;
      this.player.report(true);
      this.player.tick();
    }

    // Asks for a change, from frame `first` on if it is given.
    ask(message, asked, first) {
      const id = this.number++;
      if (message.tracks) this.changes.set(id, { asked });
      if (first === undefined) return this.player.send({ ...message, id });
      this.reaching.set(id, { first, turn: Infinity });
      return this.player.send({ ...message, id, from: first });
    }

    accepted({ id, change, frame, turn }) {
      const asked = this.changes.get(id), reach = this.reaching.get(id);
      if (asked) asked.number = change;
      if (!reach) return;
      if (turn > this.turned && frame < this.player.take.frames.length) { reach.first = frame; reach.turn = turn; } // it goes back for that
      else if (this.reaching.delete(id)) this.answered();
    }

    refused(id) {
      this.changes.delete(id);
      if (this.reaching.delete(id)) this.answered();
    }

    // When the change with this number of the server's was asked for, told once; null if nobody here did.
    asked(number) {
      for (const [id, change] of this.changes) if (change.number === number) { this.changes.delete(id); return change.asked; }
      return null;
    }

    // What was handed over last can be seen, or changes nothing.
    answered() {
      this.hand.answered();
      this.work();
    }

    // The server makes all anew from this frame on.
    goBack({ frame, turn }) {
      const { take, playing } = this.player;
      this.turned = turn;
      for (const [id, reach] of this.reaching) if (reach.turn <= turn) this.reaching.delete(id);
      this.player.drop(frame, this.held >= 0 ? this.held : !playing && frame <= take.shown ? take.shown : -1);
      if (this.held < 0 || frame > this.held) this.answered(); // otherwise when that frame is seen
    }
  }

  window.EARSteering = EARSteering;
})();
