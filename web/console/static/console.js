// What a page gains by a script: lists that look again by themselves, the time that is left, and lines to copy. Without it
// every page works by links and forms.
"use strict";

// Regions marked data-live are fetched again, as the same page, when the gateway says that something happened, and put in the
// place of the old ones: not while the page is hidden, nor while somebody is about to fill in or open something inside. Where
// the gateway can't say so, they are fetched every few seconds.
const interval = 4000;
const settled = 30000; // while the gateway says when
let told = false;
let next;

function later(ms) {
  clearTimeout(next);
  next = setTimeout(lookAgain, ms);
}

function busy(region) {
  if (region.contains(document.activeElement) && document.activeElement !== region) return true;
  if (region.querySelector("details[open]")) return true;
  return [...region.querySelectorAll("input, textarea")].some((field) => field.type !== "hidden" && field.value !== field.defaultValue);
}

async function lookAgain() {
  const regions = [...document.querySelectorAll("[data-live]")];
  if (regions.length === 0) return;
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "manual" });
      if (answer.type === "opaqueredirect") {
        location.reload(); // signed out meanwhile
        return;
      }
      if (answer.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const region of regions) {
          const next = fresh.getElementById(region.id);
          if (next && !busy(region) && next.innerHTML !== region.dataset.was) {
            region.dataset.was = next.innerHTML;
            region.replaceChildren(...next.childNodes);
            enhance(region);
            beat();
          }
        }
      }
    } catch {
      // The gateway does not answer just now; the next look may find it.
    }
  }
  later(told ? settled : interval);
}

// What a witness is still to see is looked at again by itself, more and more seldom; not while its details are open.
async function prove(wait) {
  const old = document.querySelector("[data-proof]");
  if (!old || wait > 300000) return;
  if (!document.hidden && !old.querySelector("details[open]")) {
    try {
      const answer = await fetch(old.dataset.proof, { headers: { Accept: "text/html" }, redirect: "manual" });
      const fresh = answer.ok && new DOMParser().parseFromString(await answer.text(), "text/html").body.firstElementChild;
      if (fresh && old.isConnected && !old.querySelector("details[open]")) old.replaceWith(fresh);
    } catch {
      // As above.
    }
  }
  setTimeout(() => prove(wait * 2), wait);
}

function left(until) {
  const seconds = Math.max(0, Math.floor((Date.parse(until) - Date.now()) / 1000));
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return `${minutes} min ${seconds % 60} s`;
  return `${seconds} s`;
}

function tick() {
  for (const e of document.querySelectorAll("[data-until]")) e.textContent = left(e.dataset.until);
}

function enhance(root) {
  for (const line of root.querySelectorAll(".copy")) {
    const code = line.querySelector("code");
    if (!navigator.clipboard || line.querySelector("button")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy: ${code.textContent}`);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    line.append(button);
  }
}

for (const region of document.querySelectorAll("[data-live]")) region.dataset.was = region.innerHTML;
if (document.querySelector("[data-live]")) {
  const source = new EventSource("/console/events");
  source.addEventListener("open", () => { told = true; });
  source.addEventListener("error", () => { told = false; later(interval); });
  source.addEventListener("message", () => later(300)); // what happens together is looked at once
}

// How live sessions go: the time left, and to those who may watch them the last command.
let pulses = [];

function beat() {
  for (const p of pulses) {
    for (const row of document.querySelectorAll(`[data-pulse="${CSS.escape(p.session)}"]`)) {
      const [last, count, until] = ["[data-last]", "[data-count]", "[data-left]"].map((s) => row.querySelector(s));
      if (last && p.seen) last.textContent = p.last;
      if (count && p.seen) count.textContent = p.count;
      if (until && p.until) { until.dataset.until = p.until; until.textContent = left(p.until); }
    }
  }
}

if (document.querySelector("[data-pulses]")) {
  const source = new EventSource("/console/live");
  source.addEventListener("message", (event) => { pulses = JSON.parse(event.data); beat(); });
}

enhance(document);
setInterval(tick, 1000);
later(interval);
setTimeout(() => prove(3000), 1500);
