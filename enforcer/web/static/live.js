// The stream: a list goes on by itself, and nothing that somebody may be about to touch moves.
import { SECOND, tick } from "./clock.js";

const notice = document.getElementById("stream");
const beat = Number(document.body.dataset.beat) * SECOND;
let heard = 0;
let waited = Number(document.getElementById("holds")?.dataset.waiting ?? 0);

export function listen(address, hold) {
  if (!address) return;
  const source = new EventSource(address);
  source.addEventListener("holds", (event) => take(event, () => takeHolds(parse(event.data, "holds"), hold)));
  source.addEventListener("sessions", (event) => take(event, () => takeList(parse(event.data, "sessions"))));
  source.addEventListener("lines", (event) => take(event, () => takeLines(event.data)));
  source.addEventListener("beat", (event) => take(event, () => {}));
  source.addEventListener("error", () => cut());
  source.addEventListener("open", () => alive());
  addEventListener("pagehide", () => source.close());
  alive();
  setInterval(() => { if (performance.now() - heard > 3 * beat) cut(); }, SECOND);
}

function take(event, act) {
  alive();
  act();
  tick();
}

function alive() {
  heard = performance.now();
  notice.hidden = true;
  notice.textContent = "";
}

function cut() {
  const said = "The connection to Weir is cut: what you see may be old.";
  notice.hidden = false;
  if (notice.textContent !== said) notice.textContent = said;
}

function parse(text, name) {
  return new DOMParser().parseFromString(text, "text/html").getElementById(name);
}

function takeHolds(fresh, hold) {
  const shown = document.getElementById("holds");
  if (!fresh || !shown) return;
  for (const list of shown.querySelectorAll("[data-list]")) {
    const news = fresh.querySelector(`[data-list="${list.dataset.list}"]`);
    merge(list, news);
    shown.querySelector(`[data-empty="${list.dataset.list}"]`).hidden = list.children.length > 0;
  }
  for (const count of shown.querySelectorAll("[data-count]"))
    count.textContent = fresh.querySelector(`[data-count="${count.dataset.count}"]`).textContent;
  const waiting = Number(fresh.dataset.waiting), title = document.body.dataset.title;
  if (waiting > waited) document.getElementById("news").textContent = `${waiting} wait for an answer`;
  waited = waiting;
  document.title = waiting ? `(${waiting}) ${title}` : title;
  hold?.heard([...fresh.querySelectorAll("li")].find((one) => one.dataset.ticket === hold.ticket) ?? null);
}

function takeList(fresh) {
  const shown = document.getElementById("sessions");
  if (!fresh || !shown) return;
  merge(shown.querySelector("ul"), fresh.querySelector("ul"));
  shown.querySelector(".empty").hidden = shown.querySelector("ul").children.length > 0;
}

// What is new comes last, what has changed changes in its place, and what is over leaves its place empty until somebody
// moves on (`tidy`), or at once where nothing comes below it.
function merge(list, news) {
  const known = new Map([...list.children].map((one) => [one.dataset.ticket, one]));
  const now = new Set();
  for (const one of [...news.children]) {
    now.add(one.dataset.ticket);
    const old = known.get(one.dataset.ticket);
    if (!old || old.classList.contains("over")) {
      old?.remove();
      list.append(document.adoptNode(one));
    } else {
      change(old, one);
    }
  }
  for (const [ticket, one] of known) if (!now.has(ticket) && !one.classList.contains("over")) leave(one, ticket);
  while (list.lastElementChild?.classList.contains("over")) list.lastElementChild.remove();
}

function change(old, fresh) {
  const row = old.querySelector(".row"), other = fresh.querySelector(".row");
  if (other && row && row.innerHTML !== other.innerHTML && old.dataset.html !== other.innerHTML) {
    old.dataset.html = other.innerHTML;
    row.replaceChildren(...[...other.childNodes].map((one) => document.adoptNode(one)));
  }
  old.dataset.seen = fresh.dataset.seen;
  old.dataset.state = fresh.dataset.state;
}

function leave(one, ticket) {
  const high = one.getBoundingClientRect().height, focused = one.contains(document.activeElement);
  one.classList.add("over");
  one.replaceChildren(`${ticket} is over`);
  one.style.height = `${high}px`;     // by the object model: the policy forbids only what is written in markup
  if (focused) document.getElementById("main").focus({ preventScroll: true });
}

export function tidy() {
  for (const one of document.querySelectorAll("li.over")) one.remove();
}

function takeLines(text) {
  const list = document.getElementById("lines");
  if (!list) return;
  const known = Number(list.lastElementChild?.dataset.seq ?? 0);
  const came = new DOMParser().parseFromString(`<ol>${text}</ol>`, "text/html").querySelectorAll("ol > li");
  for (const one of came) if (Number(one.dataset.seq) > known) list.append(document.adoptNode(one));
  while (list.children.length > 1000) list.firstElementChild.remove();
  if (came.length && document.getElementById("follow")?.checked)
    list.lastElementChild.scrollIntoView({ block: "end" });
}
