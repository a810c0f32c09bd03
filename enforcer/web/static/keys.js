// Single keys, where they are wanted; none of them answers while something is typed.
import { tidy } from "./live.js";

const VERBS = { a: "approve", d: "deny", r: "revoke" };
const KEPT = "weir-keys";

export function watchKeys(hold) {
  const dialog = document.getElementById("keys");
  if (!dialog) return;
  const on = document.getElementById("keys-on");
  on.checked = kept() !== "off";
  on.addEventListener("change", () => keep(on.checked ? "on" : "off"));
  document.getElementById("show-keys")?.addEventListener("click", () => dialog.showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || dialog.open) return;
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
    } else if (event.key === "Escape" && hold) {
      location.assign(hold.pane.dataset.list ?? location.href);
    } else if (on.checked && press(event, hold, dialog)) {
      event.preventDefault();
    }
  });
}

function press(event, hold, dialog) {
  const { key } = event;
  if (key === "?") dialog.showModal();
  else if (key === "j" || (key === "ArrowDown" && free(event.target))) move(1);
  else if (key === "k" || (key === "ArrowUp" && free(event.target))) move(-1);
  else if (key === " " && hold && free(event.target)) return hold.readOn();
  else if (VERBS[key] && !event.repeat) answer(VERBS[key], hold);
  else return false;
  return true;
}

function answer(verb, hold) {
  const row = document.activeElement?.closest?.(".row");
  if (row && row.closest("li").dataset.ticket !== hold?.ticket) row.click();     // nobody has seen it: it is opened
  else hold?.press(verb);
}

// Arrows and space are a control's own while it has the focus.
function free(target) {
  return !target.closest("button, select, summary, .scroll, pre");
}

function typing(target) {
  return Boolean(target.closest('input[type="text"], textarea'));
}

function move(step) {
  tidy();
  const rows = [...document.querySelectorAll("#holds .row")].filter((one) => one.offsetParent);
  if (!rows.length) return;
  let place = rows.indexOf(document.activeElement);
  if (place < 0) {
    place = rows.findIndex((one) => one.hasAttribute("aria-current"));
    if (place < 0) place = step > 0 ? -1 : rows.length;
  }
  rows[Math.max(0, Math.min(rows.length - 1, place + step))].focus();
}

function kept() {
  try { return localStorage.getItem(KEPT); } catch { return null; }
}

function keep(what) {
  try { localStorage.setItem(KEPT, what); } catch { /* it holds for this page */ }
}
