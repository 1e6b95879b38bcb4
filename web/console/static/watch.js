// Watching a live session: its terminal in the player, and what is done in it as a list, newest first. Everything comes as
// data and is put into the page as text.
"use strict";

const most = 200; // moments that stay on the page; the session's own page has all of them

const screen_ = document.getElementById("screen");
if (screen_ && window.AsciinemaPlayer) {
  const player = AsciinemaPlayer.create({ driver: "eventsource", url: screen_.dataset.url, bufferTime: 0 }, screen_,
    { fit: "width", controls: false, theme: "asciinema", autoPlay: true });
  screen_.dataset.ready = "made";
  player.addEventListener("playing", () => { screen_.dataset.ready = "playing"; });
  player.addEventListener("ended", () => { screen_.dataset.ready = "ended"; });
}

const list = document.getElementById("stream");
const hold = document.getElementById("hold");
let waiting = []; // what came while the list is held still

function element(name, text, kind) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (kind) e.className = kind;
  return e;
}

function fill(li, m) {
  li.className = (m.kind || "") + (m.failed ? " failed" : "");
  const at = element("span", undefined, "at");
  const link = element("a", m.at);
  link.href = `${list.dataset.page}?from=${Math.max(1, m.number - 20)}&hit=${m.number}#m${m.number}`;
  at.append(link);
  const what = element("div", undefined, "what");
  if (m.kind === "statement" || m.kind === "command") {
    const pre = element("pre");
    pre.append(element("code", m.text));
    what.append(pre);
    if (m.cut) what.append(element("p", "… the recording has the rest.", "faint"));
  } else {
    what.append(element("p", m.text));
  }
  if (m.params) {
    const params = element("ol", undefined, "params");
    for (const p of m.params) {
      const one = element("li");
      one.append(element("code", p));
      params.append(one);
    }
    what.append(params);
  }
  if (m.outcome) {
    const outcome = element("p", undefined, "outcome");
    if (m.failed) outcome.append(element("span", "failed", "state denied"), " ");
    outcome.append(m.outcome);
    what.append(outcome);
  }
  if (m.marks) {
    const marks = element("p", undefined, "marks");
    for (const mark of m.marks) marks.append(element("span", mark, "tag"), " ");
    what.append(marks);
  }
  li.replaceChildren(at, what);
}

function show(batch) {
  for (const m of batch.ended) {
    const li = document.getElementById(`m${m.number}`);
    if (li) fill(li, m);
  }
  if (batch.skipped > 0) {
    list.prepend(element("li", `… ${batch.skipped.toLocaleString("en")} more, which the recording has …`, "left-out"));
  }
  for (const m of batch.moments) {
    const li = element("li");
    li.id = `m${m.number}`;
    fill(li, m);
    list.prepend(li);
  }
  while (list.childElementCount > most) list.lastElementChild.remove();
  document.getElementById("nothing").hidden = list.childElementCount > 0;
}

function release() {
  for (const batch of waiting) show(batch);
  waiting = [];
  document.getElementById("skipped").textContent = "";
}

if (list) {
  const state = document.getElementById("watching");
  const source = new EventSource(list.dataset.url);
  source.addEventListener("message", (event) => {
    const batch = JSON.parse(event.data);
    document.getElementById("total").textContent = batch.total.toLocaleString("en");
    if (!hold.checked) {
      show(batch);
      return;
    }
    waiting.push(batch);
    if (waiting.length > most) waiting.shift();
    document.getElementById("skipped").textContent = "More has come meanwhile.";
  });
  source.addEventListener("open", () => { state.textContent = "live"; state.className = "state active"; });
  source.addEventListener("error", () => { state.textContent = "not connected"; state.className = "state pending"; });
  source.addEventListener("done", () => {
    source.close();
    state.textContent = "over";
    state.className = "state ended";
    release();
  });
  hold.addEventListener("change", () => { if (!hold.checked) release(); });
}
