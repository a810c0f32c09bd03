// What a page does by itself, where the browser may run it; without this file everything works by links and forms.
import { countDown } from "./clock.js";
import { watchHold } from "./hold.js";
import { watchKeys } from "./keys.js";
import { listen } from "./live.js";
import { watchReplay } from "./replay.js";
import { watchTapes } from "./tape.js";

document.documentElement.classList.add("script");
countDown();
const hold = watchHold(document.getElementById("hold"));
watchKeys(hold);
watchTapes();
watchReplay(document.getElementById("player"));
listen(document.body.dataset.stream, hold);
