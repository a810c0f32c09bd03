// What flowed in one operation: a terminal, played as it looked, or streams, a part at a time.  Pieces come from the
// recording page by page; of a long one only what is played, and a few screens to come back to, is here.
import { clock, Letters, seen, visible } from "./letters.js";
import { draw } from "./looks.js";
import { Screen } from "./screen.js";

const IDLE = 2000;                    // milliseconds of a pause, where pauses are short
const LONGEST = 3600e3;
const POLL = 1000;
const STEP = 5000;                    // that an arrow key goes
const KEPT = 64;                      // screens to come back to
const SHOWN = 64;                     // characters that were typed last
const MOST = { columns: 1000, rows: 200 };
const FED = 128;                      // characters between looks at the clock
const BREATH = 50;                    // milliseconds after which the page lives on: what a server sends may be slow to draw
const players = new WeakMap();

export function watchTapes() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".tape [data-do]");
    if (button?.tagName === "BUTTON") of(button)[button.dataset.do]();
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches?.('.tape [data-do="seek"]')) of(event.target).seek(Number(event.target.value));
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !event.target.matches?.(".tape .screen")) return;
    const player = of(event.target);
    if (event.key === " ") player.play();
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight")
      player.seek(player.now + (event.key === "ArrowLeft" ? -STEP : STEP));
    else if (event.key === "End") player.end();
    else if (event.key === "Home") player.seek(0);
    else return;
    event.preventDefault();
  });
}

function of(element) {
  const place = element.closest(".tape");
  if (!players.has(place)) players.set(place, place.dataset.form === "terminal" ? new Terminal(place) : new Streams(place));
  return players.get(place);
}

class Source {
  constructor(place) {
    this.place = place;
    this.said = Object.fromEntries([...place.querySelectorAll("[data-say]")].map((one) => [one.dataset.say, one]));
    this.done = Object.fromEntries([...place.querySelectorAll("[data-do]")].map((one) => [one.dataset.do, one]));
  }

  async page(after, live) {
    const answer = await fetch(`${this.place.dataset.tape}?after=${after}${live ? "&live=1" : ""}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status === 401 ? "you are not logged in any more" : `the page says ${answer.status}`);
    return answer.json();
  }

  say(what) { if (this.said.state.textContent !== what) this.said.state.textContent = what; }
}

class Terminal extends Source {
  constructor(place) {
    super(place);
    this.shown = document.createElement("pre");
    this.shown.className = "screen";
    this.shown.tabIndex = 0;
    this.shown.setAttribute("role", "region");
    this.typed = document.createElement("p");
    this.typed.className = "typed dim";
    this.said.shown.append(this.shown, this.typed);
    this.said.shown.hidden = false;
    this.length = 0;
    this.turn = 0;                    // what was begun before goes on no more
    this.screens = [];
    this.rewind();
    addEventListener("resize", () => this.fit());
  }

  rewind() {
    this.screen = new Screen();
    Object.assign(this, { letters: { out: new Letters(), err: new Letters(), in: new Letters() }, keys: "", now: 0, last: 0,
      pieces: [], unfed: "", more: true, ended: false });
    this.fit();
    this.render();
  }

  // One piece more.
  async apply(turn) {
    const [time, stream, content] = this.pieces.shift();
    this.now = Math.max(this.now, time);
    if (stream === "size") {
      const [columns, rows] = atob(content ?? "").split("x").map((one) => (/^[0-9]{1,9}$/.test(one) ? Number(one) : 0));
      this.screen.resize(Math.min(columns || 80, MOST.columns), Math.min(rows || 24, MOST.rows));
      this.fit();
    } else if (stream === "out" || stream === "err") this.unfed += this.letters[stream].read(content);
    else if (stream === "in") this.keys = (this.keys + seen(this.letters.in.read(content))).slice(-SHOWN);
    await this.feed(turn);
  }

  async feed(turn) {
    while (this.unfed && turn === this.turn) {
      const end = /[\ud800-\udbff]/.test(this.unfed[FED - 1] ?? "") ? FED + 1 : FED;
      this.screen.feed(this.unfed.slice(0, end));
      this.unfed = this.unfed.slice(end);
      if (performance.now() - this.breath < BREATH) continue;
      this.render();
      await pause(0);
      this.breath = performance.now();
    }
  }

  async fill(live, turn) {
    const found = await this.page(this.last, live);
    if (turn !== this.turn) return 0; // somebody went elsewhere meanwhile
    if (found.wrong && !found.pieces.length) throw new Error(found.wrong);
    this.keep();
    this.pieces = found.pieces;
    Object.assign(this, { last: found.last, more: found.more, ended: found.ended, length: Math.max(this.length, found.length) });
    this.done.seek.max = Math.ceil(this.length);
    return found.pieces.length;
  }

  // What is shown where a page begins.
  keep() {
    const last = this.screens.at(-1);
    if (this.pieces.length || this.unfed || (last && last.now >= this.now)) return;
    const letters = Object.fromEntries(Object.entries(this.letters).map(([name, one]) => [name, new Letters(one.rest)]));
    this.screens.push({ screen: this.screen.copy(), letters, keys: this.keys, now: this.now, last: this.last });
    if (this.screens.length > KEPT) this.screens = this.screens.filter((_, number) => number % 2 === 0);
  }

  // To what was kept, where that is nearer than from here on.
  jump(time) {
    const found = this.screens.findLast((one) => one.now <= time);
    if (time >= this.now && (!found || found.now <= this.now)) return;
    this.rewind();
    if (!found) return;
    const letters = Object.fromEntries(Object.entries(found.letters).map(([name, one]) => [name, new Letters(one.rest)]));
    Object.assign(this, { ...found, screen: found.screen.copy(), letters });
  }

  play() {
    if (this.playing) return this.pause("Paused");
    if (this.ended && !this.pieces.length && !this.more) this.rewind();
    return this.run((turn) => this.forward(turn));
  }

  end() { return this.run((turn) => this.skip(Infinity, turn).then(() => this.forward(turn))); }

  seek(time) {
    const wanted = Math.max(0, Math.min(time, this.length)), playing = this.playing;
    return this.run(async (turn) => {
      this.jump(wanted);
      await this.skip(wanted, turn);
      if (turn !== this.turn) return;
      this.now = Math.max(this.now, wanted);
      this.render();
      if (playing) await this.forward(turn);
      else this.pause("Paused");
    }, playing);
  }

  async run(act, plays = true) {
    this.turn += 1;
    const turn = this.turn;
    this.playing = plays;
    this.breath = performance.now();
    this.done.play.textContent = plays ? "Pause" : "Play";
    this.say(plays ? "Playing" : "Looking for it");
    try {
      await act(turn);
    } catch (wrong) {
      if (turn === this.turn) this.pause(wrong.message);
    }
  }

  pause(said) {
    this.turn += 1;
    this.playing = false;
    this.done.play.textContent = "Play";
    this.say(said);
    this.render();
  }

  // All that is before `time`, at once.
  async skip(time, turn) {
    await this.feed(turn);
    while (turn === this.turn) {
      while (turn === this.turn && this.pieces.length && this.pieces[0][0] <= time) await this.apply(turn);
      if (this.pieces.length || !this.more) return;
      if (!await this.fill(false, turn)) return;
    }
  }

  async forward(turn) {
    await this.feed(turn);
    while (turn === this.turn) {
      if (!this.pieces.length) {
        if (!this.more && this.ended) { this.pause("The end"); return; }
        const live = !this.more;
        const came = await this.fill(live, turn);
        if (live) {
          while (turn === this.turn && this.pieces.length) await this.apply(turn);
          this.say("Live");
          this.render();
          if (!came && !this.ended) await pause(POLL);
        }
        continue;
      }
      const speed = Number(this.done.speed.value) || 1, gap = this.pieces[0][0] - this.now;
      const wait = Math.min(this.done.idle.checked ? IDLE : LONGEST, Math.max(0, gap) / speed);
      if (wait > 4) { this.render(); await pause(wait); }
      if (turn !== this.turn) return;
      const until = this.pieces[0][0] + 8 * speed;
      while (turn === this.turn && this.pieces.length && this.pieces[0][0] <= until) await this.apply(turn);
    }
  }

  render() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      const { screen } = this, label = `Terminal, ${screen.columns} columns, ${screen.rows} rows. Space plays, arrows seek`;
      if (this.shown.getAttribute("aria-label") !== label) this.shown.setAttribute("aria-label", label);
      this.shown.replaceChildren(...screen.lines.map((_, y) => draw(screen, y)));
      this.typed.textContent = this.keys ? `typed: ${this.keys}` : "";
      this.done.seek.value = Math.floor(this.now);
      const said = `${clock(this.now)} of ${clock(this.length)}`;
      this.done.seek.setAttribute("aria-valuetext", said);
      this.said.time.textContent = said;
    });
  }

  fit() {
    const wide = this.place.clientWidth - 18;
    if (wide > 0) this.shown.style.fontSize = `${Math.max(6, Math.min(14, wide / (this.screen.columns * 0.605)))}px`;
  }
}

class Streams extends Source {
  constructor(place) {
    super(place);
    Object.assign(this, { last: 0, letters: { out: new Letters(), err: new Letters(), in: new Letters() } });
  }

  async show() {
    try {
      const found = await this.page(this.last, false);
      if (found.wrong && !found.pieces.length) { this.say(found.wrong); return; }
      this.said.shown.hidden = false;
      if (found.pieces.length) this.said.shown.replaceChildren(...this.blocks(found.pieces));
      this.last = found.last;
      this.done.show.textContent = found.more ? "What came after" : found.ended ? "From the beginning" : "Look again";
      if (!found.more && found.ended) Object.assign(this, { last: 0, letters: { out: new Letters(), err: new Letters(), in: new Letters() } });
      this.say(found.more ? "There is more" : found.ended ? "That is all" : "It goes on");
    } catch (wrong) {
      this.say(wrong.message);
    }
  }

  blocks(pieces) {
    const made = [];
    let text = null, before = "";
    for (const [, stream, content] of pieces) {
      if (stream !== before) {
        const head = document.createElement("h3"), block = document.createElement("pre");
        head.textContent = { in: "Input", out: "Output", err: "Errors" }[stream] ?? stream;
        block.className = `stream stream-${["in", "out", "err"].includes(stream) ? stream : "other"}`;
        block.tabIndex = 0;
        block.setAttribute("role", "region");
        block.setAttribute("aria-label", head.textContent);
        text = document.createElement("code");
        block.append(text);
        made.push(head, block);
        before = stream;
      }
      text.append(visible((this.letters[stream] ?? new Letters()).read(content)));
    }
    return made;
  }
}

function pause(time) { return new Promise((done) => { setTimeout(done, time); }); }
