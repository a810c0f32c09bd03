// How long is left, by the server's clock.
const ahead = Number(document.body.dataset.now) / 1e6 - Date.now();

export const SECOND = 1000;

export function countDown() {
  tick();
  setInterval(tick, SECOND);
}

export function tick() {
  const now = Date.now() + ahead;
  for (const one of document.querySelectorAll("time[data-until]")) {
    const seconds = Math.floor((Number(one.dataset.until) / 1e6 - now) / SECOND);
    const said = seconds <= 0 ? "time is over" : `${inWords(seconds)} left`;
    if (one.textContent !== said) one.textContent = said;
    one.classList.toggle("soon", seconds < 60);
  }
}

function inWords(seconds) {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, "0")} s`;
  return seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
}
