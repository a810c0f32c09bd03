// A recorded session, as it went: events appear with the pauses that they had.
const LONGEST = 3000;                 // milliseconds between two events, as of `weir replay --speed`

export function watchReplay(player) {
  if (player) new Player();
}

class Player {
  constructor() {
    this.events = [...document.querySelectorAll("#lines > .event")];
    this.play = document.getElementById("play");
    this.speed = document.getElementById("speed");
    this.at = document.getElementById("at");
    this.next = this.events.length;
    this.play.addEventListener("click", () => (this.timer ? this.pause() : this.start()));
    document.getElementById("whole").addEventListener("click", () => { this.pause(); this.show(this.events.length); });
    this.show(this.events.length);
  }

  show(count) {
    this.events.forEach((one, number) => { one.hidden = number >= count; });
    this.next = count;
    this.at.textContent = `${count} of ${this.events.length} events`;
  }

  start() {
    if (!this.events.length) return;
    if (this.next >= this.events.length) this.show(0);
    this.play.textContent = "Pause";
    this.step();
  }

  step() {
    this.show(this.next + 1);
    this.events[this.next - 1].scrollIntoView({ block: "nearest" });
    if (this.next >= this.events.length) return this.pause();
    const gap = (this.time(this.next) - this.time(this.next - 1)) / 1e6 / Number(this.speed.value);
    this.timer = setTimeout(() => this.step(), Math.min(LONGEST, Math.max(0, gap)));
    return undefined;
  }

  time(number) { return Number(this.events[number].dataset.at); }

  pause() {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.play.textContent = "Play";
  }
}
