// A terminal's screen, from what was sent to it: text, cursor, colours, erasing, scrolling, the other screen (ECMA-48,
// XTerm Control Sequences).  It answers nothing and reaches nothing: strings (titles, clipboard, devices) are passed over.
import { far, look, PLAIN } from "./looks.js";

const WIDE = /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]/u;
const NARROW = /^[\x20-\x7e]$/;
const MARK = /[\p{M}\u200d]/u;      // goes with the letter before it
const UNSEEN = /[\p{Cf}\p{Zl}\p{Zp}]/u;      // also what turns words round (Unicode, UAX 9)
const LINES = { j: "┘", k: "┐", l: "┌", m: "└", n: "┼", q: "─", t: "├", u: "┤", v: "┴", w: "┬", x: "│", "`": "◆", a: "▒", f: "°", g: "±", "~": "·" };
const LONGEST = 256;                  // characters of a sequence
const MARKS = 4;                      // on one letter
const BLANK = Object.freeze({ text: " ", look: PLAIN });
const REST = Object.freeze({ text: "", look: PLAIN });      // of a wide letter

export class Screen {
  constructor(columns = 80, rows = 24) {
    this.columns = columns;
    this.rows = rows;
    this.state = "text";
    this.held = "";
    this.reset();
  }

  reset() {
    Object.assign(this, { x: 0, y: 0, look: PLAIN, top: 0, bottom: this.rows - 1, wraps: true, inserts: false, origin: false,
      cursor: true, drawing: [false, false], shift: 0, saved: null, other: null, last: " " });
    this.lines = Array.from({ length: this.rows }, () => this.blank());
  }

  blank() { return Array(this.columns).fill(BLANK); }

  // What there is, to come back to it.
  copy() {
    const made = Object.assign(Object.create(Screen.prototype), this);
    made.lines = this.lines.map((one) => [...one]);
    made.other = this.other && { ...this.other, lines: this.other.lines.map((one) => [...one]) };
    made.drawing = [...this.drawing];
    return made;
  }

  resize(columns, rows) {
    if (columns === this.columns && rows === this.rows) return;
    const fit = (lines) => {
      const kept = lines.length > rows ? lines.slice(Math.min(lines.length - rows, Math.max(0, this.y - rows + 1))) : lines;
      return Array.from({ length: rows }, (_, y) => Array.from({ length: columns }, (_, x) => kept[y]?.[x] ?? BLANK));
    };
    const gone = this.rows > rows ? Math.min(this.rows - rows, Math.max(0, this.y - rows + 1)) : 0;
    this.lines = fit(this.lines);
    if (this.other) this.other.lines = fit(this.other.lines);
    Object.assign(this, { columns, rows, top: 0, bottom: rows - 1 });
    this.x = Math.min(this.x, columns - 1);
    this.y = Math.min(this.y - gone, rows - 1);
  }

  feed(text) {
    for (const one of text) this.take(one);
  }

  take(one) {
    const code = one.codePointAt(0);
    if (code === 0x18 || code === 0x1a) { this.state = "text"; return; }
    if (code === 0x1b) { this.state = "escape"; this.held = ""; return; }
    if (code >= 0x80 && code < 0xa0 && (this.state !== "string" || code === 0x9c)) {
      this.held = "";
      this.escape(String.fromCharCode(code - 0x40));
      return;
    }
    if (this.state === "string") { if (code === 7) this.state = "text"; return; }
    if (code < 0x20) { this.control(code); return; }
    if (code === 0x7f) return;
    if (this.state === "text") this.put(one);
    else if (this.state === "escape") this.escape(one);
    else if (this.state === "sequence") this.gather(one);
    else if (this.state === "charset") { this.drawing[this.held === ")" ? 1 : 0] = one === "0"; this.state = "text"; }
    else this.state = "text";         // "skip": the second of two
  }

  control(code) {
    if (code === 8) this.x = Math.max(0, Math.min(this.x, this.columns - 1) - 1);
    else if (code === 9) this.x = Math.min(this.columns - 1, (Math.floor(this.x / 8) + 1) * 8);
    else if (code >= 10 && code <= 12) this.index();
    else if (code === 13) this.x = 0;
    else if (code === 14 || code === 15) this.shift = 15 - code;
  }

  put(one) {
    if (!NARROW.test(one)) {
      if (MARK.test(one)) return this.mark(one);
      if (UNSEEN.test(one)) return undefined;
    }
    const wide = WIDE.test(one) ? 2 : 1;
    if (this.x + wide > this.columns) {
      if (this.wraps) { this.x = 0; this.index(); } else this.x = Math.max(0, this.columns - wide);
    }
    const line = this.lines[this.y];
    if (this.inserts) { line.splice(this.x, 0, ...Array(wide).fill(BLANK)); line.length = this.columns; }
    const text = this.drawing[this.shift] ? LINES[one] ?? one : one;
    line[this.x] = { text, look: this.look };
    if (wide === 2 && this.x + 1 < this.columns) line[this.x + 1] = REST;
    this.x += wide;
    this.last = one;
    return undefined;
  }

  mark(one) {
    const line = this.lines[this.y], at = Math.min(this.x, this.columns) - 1;
    const before = line[at]?.text === "" ? at - 1 : at;
    if (before >= 0 && line[before].text.length <= MARKS) line[before] = { ...line[before], text: line[before].text + one };
  }

  escape(one) {
    this.state = "text";
    if (one === "[") { this.state = "sequence"; this.held = ""; }
    else if ("]PX^_".includes(one)) this.state = "string";
    else if ("()".includes(one)) { this.state = "charset"; this.held = one; }
    else if (one >= " " && one <= "/") this.state = "skip";
    else if (one === "7") this.save();
    else if (one === "8") this.restore();
    else if (one === "D") this.index();
    else if (one === "E") { this.x = 0; this.index(); }
    else if (one === "M") { if (this.y === this.top) this.scroll(this.top, -1); else this.y = Math.max(0, this.y - 1); }
    else if (one === "c") this.reset();
  }

  gather(one) {
    if (one >= "@" && one <= "~") {
      this.state = "text";
      if (this.held.length <= LONGEST) this.act(this.held, one);
    } else if (this.held.length <= LONGEST) this.held += one;
  }

  act(held, final) {
    const found = /^(\??)([0-9;:]*)$/.exec(held);
    if (!found) return;
    const given = found[2].split(";").map((one) => Math.min(9999, Number.parseInt(one, 10) || 0));
    const n = Math.max(1, given[0]);
    if (final === "h" || final === "l") return this.modes(found[1], given, final === "h");
    if (final === "m" && !found[1]) return this.colour(found[2]);
    if (found[1]) return;
    const act = ACTS[final];
    if (act) act(this, n, given);
  }

  modes(own, given, on) {
    for (const one of given) {
      if (!own) { if (one === 4) this.inserts = on; }
      else if (one === 7) this.wraps = on;
      else if (one === 25) this.cursor = on;
      else if (one === 6) { this.origin = on; this.go(0, 0); }
      else if (one === 1048) { if (on) this.save(); else this.restore(); }
      else if (one === 47 || one === 1047 || one === 1049) this.exchange(on);
    }
  }

  exchange(on) {
    if (on === Boolean(this.other)) return;
    if (on) {
      this.other = { lines: this.lines, x: this.x, y: this.y, look: this.look };
      this.lines = Array.from({ length: this.rows }, () => this.blank());
    } else {
      Object.assign(this, this.other, { other: null });
      this.x = Math.min(this.x, this.columns);
      this.y = Math.min(this.y, this.rows - 1);
    }
  }

  colour(text) {
    const parts = text.split(/[;:]/).map((one) => Number.parseInt(one, 10) || 0);
    for (let at = 0; at < parts.length; at += 1) {
      const one = parts[at];
      if (one === 38 || one === 48) {
        const found = far(parts, at, text.includes(":"));
        at = found.at;
        if (found.value) this.look = { ...this.look, [one === 38 ? "fg" : "bg"]: found.value };
      } else this.look = look(this.look, one);
    }
  }

  save() { this.saved = { x: this.x, y: this.y, look: this.look }; }
  restore() {
    Object.assign(this, this.saved ?? { x: 0, y: 0, look: PLAIN });
    this.y = Math.min(this.y, this.rows - 1);
    this.x = Math.min(this.x, this.columns - 1);
  }

  index() { if (this.y === this.bottom) this.scroll(this.top, 1); else this.y = Math.min(this.rows - 1, this.y + 1); }

  // Lines from `from` to the lower margin move up by `count`, down where that is less than 0.
  scroll(from, count) {
    const size = this.bottom - from + 1, some = Math.min(size, Math.abs(count));
    if (from < this.top || from > this.bottom) return;
    const fresh = Array.from({ length: some }, () => this.blank());
    if (count > 0) { this.lines.splice(from, some); this.lines.splice(this.bottom + 1 - some, 0, ...fresh); }
    else { this.lines.splice(this.bottom + 1 - some, some); this.lines.splice(from, 0, ...fresh); }
  }

  go(x, y) {
    const top = this.origin ? this.top : 0, bottom = this.origin ? this.bottom : this.rows - 1;
    this.x = Math.max(0, Math.min(this.columns - 1, x));
    this.y = Math.max(top, Math.min(bottom, y + top));
  }

  move(dx, dy) {
    const inside = this.y >= this.top && this.y <= this.bottom;
    const low = inside ? this.top : 0, high = inside ? this.bottom : this.rows - 1;
    this.x = Math.max(0, Math.min(this.columns - 1, Math.min(this.x, this.columns - 1) + dx));
    this.y = Math.max(low, Math.min(high, this.y + dy));
  }

  erase(from, to, y = this.y) {
    const empty = this.look.bg ? { text: " ", look: { ...PLAIN, bg: this.look.bg } } : BLANK;
    this.lines[y].fill(empty, from, Math.min(to, this.columns));
  }

  // The text of a line, as pyte's `display` has it.
  text(y) { return this.lines[y].map((one) => one.text).join(""); }
}

const ACTS = {
  A: (s, n) => s.move(0, -n), B: (s, n) => s.move(0, n), C: (s, n) => s.move(n, 0), D: (s, n) => s.move(-n, 0),
  a: (s, n) => s.move(n, 0), e: (s, n) => s.move(0, n),
  E: (s, n) => { s.move(0, n); s.x = 0; }, F: (s, n) => { s.move(0, -n); s.x = 0; },
  G: (s, n) => { s.x = Math.min(s.columns, n) - 1; }, "`": (s, n) => { s.x = Math.min(s.columns, n) - 1; },
  d: (s, n) => s.go(Math.min(s.x, s.columns - 1), n - 1), H: (s, n, given) => s.go(Math.max(1, given[1] ?? 1) - 1, n - 1),
  f: (s, n, given) => s.go(Math.max(1, given[1] ?? 1) - 1, n - 1),
  J: (s, _, [how]) => {
    if (how === 0) { s.erase(s.x, s.columns); for (let y = s.y + 1; y < s.rows; y += 1) s.erase(0, s.columns, y); }
    else if (how === 1) { s.erase(0, s.x + 1); for (let y = 0; y < s.y; y += 1) s.erase(0, s.columns, y); }
    else if (how === 2) for (let y = 0; y < s.rows; y += 1) s.erase(0, s.columns, y);
  },
  K: (s, _, [how]) => s.erase(how ? 0 : s.x, how === 1 ? s.x + 1 : s.columns),
  L: (s, n) => { s.scroll(s.y, -n); s.x = 0; }, M: (s, n) => { s.scroll(s.y, n); s.x = 0; }, S: (s, n) => s.scroll(s.top, n),
  T: (s, n, given) => { if (given.length === 1) s.scroll(s.top, -n); },
  P: (s, n) => { const line = s.lines[s.y]; line.splice(s.x, n); while (line.length < s.columns) line.push(BLANK); },
  "@": (s, n) => { const line = s.lines[s.y], some = Math.min(n, s.columns - s.x);
    if (some > 0) { line.splice(s.x, 0, ...Array(some).fill(BLANK)); line.length = s.columns; } },
  X: (s, n) => s.erase(s.x, s.x + n),
  b: (s, n) => { for (let at = 0; at < Math.min(n, s.columns); at += 1) s.put(s.last); },
  r: (s, _, given) => {
    const top = Math.max(1, given[0]) - 1, bottom = Math.min(s.rows, given[1] || s.rows) - 1;
    if (top < bottom) { Object.assign(s, { top, bottom }); s.go(0, 0); }
  },
  s: (s) => s.save(), u: (s) => s.restore(),
};
