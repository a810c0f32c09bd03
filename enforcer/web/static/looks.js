// How letters look (ECMA-48, 8.3.117; XTerm's colours), and a screen's lines as elements.
export const PLAIN = Object.freeze({ fg: null, bg: null, bold: false, faint: false, italic: false, under: false, turned: false, struck: false });

export function look(before, code) {
  if (code === 0) return PLAIN;
  const named = { 1: { bold: true }, 2: { faint: true }, 3: { italic: true }, 4: { under: true }, 7: { turned: true }, 9: { struck: true },
    22: { bold: false, faint: false }, 23: { italic: false }, 24: { under: false }, 27: { turned: false }, 29: { struck: false },
    39: { fg: null }, 49: { bg: null } }[code];
  if (named) return { ...before, ...named };
  if (code >= 30 && code <= 37) return { ...before, fg: code - 30 };
  if (code >= 90 && code <= 97) return { ...before, fg: code - 82 };
  if (code >= 40 && code <= 47) return { ...before, bg: code - 40 };
  if (code >= 100 && code <= 107) return { ...before, bg: code - 92 };
  return before;
}

// 38;5;N and 38;2;R;G;B, and with colons, where a colour space may stand before R (ITU T.416).
export function far(parts, at, colons) {
  if (parts[at + 1] === 5) return { at: at + 2, value: indexed(parts[at + 2] ?? 0) };
  if (parts[at + 1] !== 2) return { at: parts.length, value: null };
  const from = colons && parts.length - at > 5 ? at + 3 : at + 2;
  const [red, green, blue] = [0, 1, 2].map((one) => Math.min(255, parts[from + one] ?? 0));
  return { at: from + 2, value: `rgb(${red}, ${green}, ${blue})` };
}

function indexed(n) {
  if (n < 16) return n === 0 ? "rgb(0, 0, 0)" : n;
  if (n >= 232) { const grey = 8 + (Math.min(n, 255) - 232) * 10; return `rgb(${grey}, ${grey}, ${grey})`; }
  const step = (one) => (one ? 55 + one * 40 : 0);
  return `rgb(${step(Math.floor((n - 16) / 36))}, ${step(Math.floor((n - 16) / 6) % 6)}, ${step((n - 16) % 6)})`;
}

// A line as elements: one for each run of the same look.
export function draw(screen, y) {
  const made = document.createElement("span");
  made.className = "screen-line";
  const line = screen.lines[y], cursor = screen.cursor && y === screen.y ? Math.min(screen.x, screen.columns - 1) : -1;
  let begin = 0, text = "";
  for (let x = 0; x < line.length; x += 1) {
    text += line[x].text;
    if (x + 1 < line.length && line[x + 1].look === line[x].look && x !== cursor && x + 1 !== cursor) continue;
    made.append(paint(text, line[x].look, begin <= cursor && cursor <= x));
    begin = x + 1;
    text = "";
  }
  made.append("\n");
  return made;
}

function paint(text, one, cursor) {
  const run = document.createElement("span");
  run.textContent = text;
  const turned = one.turned !== cursor;
  const fg = turned ? one.bg ?? "ground" : one.fg, bg = turned ? one.fg ?? "ink" : one.bg;
  for (const name of ["bold", "faint", "italic", "under", "struck"]) if (one[name]) run.classList.add(`t-${name}`);
  if (typeof fg === "string" && fg.startsWith("rgb")) run.style.color = fg;        // by the object model, as in live.js
  else if (fg !== null) run.classList.add(`fg-${fg}`);
  if (typeof bg === "string" && bg.startsWith("rgb")) run.style.backgroundColor = bg;
  else if (bg !== null) run.classList.add(`bg-${bg}`);
  return run;
}
