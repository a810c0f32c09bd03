// What flowed, as text that can be read.

// UTF-8 over pieces: what is not whole yet is kept.
export class Letters {
  constructor(rest = []) { this.rest = rest; }

  read(base64) {
    if (base64 === null) return "\u2423erased\u2423";
    const bytes = [...this.rest, ...Uint8Array.from(atob(base64), (one) => one.charCodeAt(0))];
    let begin = bytes.length;
    for (let at = bytes.length - 1; at >= Math.max(0, bytes.length - 3); at -= 1) {
      if ((bytes[at] & 0xc0) === 0x80) continue;
      const wanted = bytes[at] >= 0xf0 ? 4 : bytes[at] >= 0xe0 ? 3 : bytes[at] >= 0xc0 ? 2 : 1;
      if (at + wanted > bytes.length) begin = at;
      break;
    }
    this.rest = bytes.slice(begin);
    return new TextDecoder().decode(Uint8Array.from(bytes.slice(0, begin)));
  }
}

export function clock(time) {
  const seconds = Math.floor(time / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

// Nothing that turns words round or hides.
export function visible(text) {
  return text.replaceAll("\r\n", "\n").replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (one) => (one === "\n" || one === "\t" ? one
    : `\\u{${one.codePointAt(0).toString(16)}}`));
}

export function seen(text) {
  return visible(text.replaceAll("\r", "\u23ce").replaceAll("\n", "\u23ce").replaceAll("\t", "\u21e5").replaceAll("\x7f", "\u232b"));
}
