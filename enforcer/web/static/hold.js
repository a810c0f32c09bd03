// An answer is for what its giver has seen: it counts where all of the hold was shown to its end, and for half a
// second; whatever changes begins that anew.  As agent's board has it for the terminal.
const SETTLED = 500;                  // milliseconds

export function watchHold(pane) {
  return pane ? new Hold(pane) : null;
}

class Hold {
  constructor(pane) {
    this.pane = pane;
    this.ends = new Map();
    this.since = 0;
    this.sent = false;
    this.seeing = new IntersectionObserver((seen) => this.see(seen));
    this.look();
    pane.addEventListener("submit", (event) => this.submit(event));
    pane.addEventListener("click", (event) => this.click(event));
    document.addEventListener("visibilitychange", () => this.settle());
    window.addEventListener("focus", () => this.settle());
    window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  }

  get ticket() { return this.pane.dataset.ticket; }
  get over() { return this.pane.classList.contains("is-over"); }

  // At what is shown now: nothing of it has been seen.
  look() {
    this.seeing.disconnect();
    this.ends = new Map([...this.pane.querySelectorAll("[data-end]")].map((one) => [one, false]));
    for (const one of this.ends.keys()) this.seeing.observe(one);
    this.settle();
  }

  see(entries) {
    for (const one of entries) if (one.isIntersecting && this.ends.has(one.target)) this.ends.set(one.target, true);
    this.say();
  }

  settle() {
    this.since = performance.now();
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.say(), SETTLED + 20);
    this.say();
  }

  // Why this answer may not be given yet; "" where it may.
  notYet(verb) {
    if (this.over) return `${this.ticket} is over.`;
    const left = [...this.ends].filter(([, seen]) => !seen).map(([one]) => one.dataset.end);
    if (verb === "approve" && left.length) return `There is more of the ${left[0]}: read on to the end.`;
    if (performance.now() - this.since < SETTLED || document.visibilityState !== "visible")
      return "It has only just been shown: look first.";
    return "";
  }

  say() {
    const why = this.notYet("approve"), told = this.pane.querySelector("#not-yet");
    const button = this.pane.querySelector('form[data-verb="approve"] button');
    if (button) button.setAttribute("aria-disabled", String(Boolean(why)));
    if (told && button) {
      const said = why.startsWith("There is more") ? why : "";
      if (told.textContent !== said) told.textContent = said;
    }
  }

  form(verb) { return this.over ? null : this.pane.querySelector(`form[data-verb="${verb}"]`); }

  click(event) {
    const button = event.target.closest('button[aria-disabled="true"]');
    if (button) {
      event.preventDefault();
      this.readOn();
    }
  }

  submit(event) {
    const why = this.sent ? "It has been sent." : this.notYet(event.target.dataset.verb);
    if (why) {
      event.preventDefault();
      this.tell(why);
    } else {
      this.sent = true;
    }
  }

  tell(why) {
    const told = this.pane.querySelector("#not-yet") ?? this.pane.querySelector("#over");
    told.textContent = why;
    told.hidden = false;
  }

  // A page further, in the first part whose end was not shown; whether there was one.
  readOn() {
    const [end] = [...this.ends].find(([, seen]) => !seen) ?? [];
    if (!end) return false;
    const box = end.closest(".scroll");
    box.scrollIntoView({ block: "nearest" });
    const before = box.scrollTop;
    box.scrollBy(0, box.clientHeight * 0.9);
    if (box.scrollTop === before) end.scrollIntoView({ block: "nearest" });
    return true;
  }

  // A key: sends what needs no words, and asks for those that are needed.
  press(verb) {
    const form = this.form(verb);
    if (!form) return this.tell(this.over ? `${this.ticket} is over.` : "You cannot answer this so.");
    const why = this.notYet(verb);
    if (why) {
      this.tell(why);
      if (verb === "approve") this.readOn();
      return undefined;
    }
    const reason = form.querySelector('input[name="reason"]');
    if (reason?.required && !reason.value.trim()) return reason.focus();
    return form.requestSubmit();
  }

  // What the list says of it now: the item, or null.
  heard(item) {
    if (this.over || this.sent) return;
    if (!item) this.end();
    else if (item.dataset.seen !== this.pane.dataset.seen) this.renew();
  }

  end() {
    this.pane.classList.add("is-over");
    const told = this.pane.querySelector("#over");
    told.textContent = `${this.ticket} is over: answered, ended, or its time has run out. Nothing is chosen.`;
    told.hidden = false;
    this.say();
  }

  // It has changed, as when its plan has come: shown anew, and what was being typed stays.
  async renew() {
    if (this.renewing) return;
    this.renewing = true;
    try {
      const answer = await fetch(this.pane.dataset.page, { credentials: "same-origin", redirect: "error" });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("hold");
      if (!answer.ok || !fresh || fresh.dataset.ticket !== this.ticket) throw new Error();
      if (fresh.dataset.state !== this.pane.dataset.state) return location.reload();
      this.pane.querySelector("[data-part]").replaceWith(document.adoptNode(fresh.querySelector("[data-part]")));
      this.pane.dataset.seen = fresh.dataset.seen;
      for (const one of this.pane.querySelectorAll('input[name="seen"]')) one.value = fresh.dataset.seen;
      this.look();
    } catch {
      this.tell("It has changed and could not be shown anew: load the page again.");
      this.since = Infinity;
    } finally {
      this.renewing = false;
    }
    return undefined;
  }
}
