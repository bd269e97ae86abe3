// The page: pictures come as events, and each part draws them.

import { $, post, readColours } from "./common.js";
import * as bars from "./bars.js";
import * as map from "./map.js";
import * as processes from "./processes.js";
import * as rates from "./rates.js";

let picture = null;
let isPaused = false;

function draw() {
  if (!picture) return;
  map.draw(picture);
  bars.draw(picture);
  rates.draw(picture);
  processes.draw(picture);
  $("clock").textContent = `${(picture.at / 1e9).toFixed(2)} s`;
  // For tests, which see no canvas.
  Object.assign(document.body.dataset, { picture: picture.number, free: picture.system.free, processes: picture.processes.map((process) => process.name).join(" ") });
}

function state({ title, replay, paused, position }) {
  isPaused = paused;
  $("title").textContent = title;
  const shown = $("state");
  shown.textContent = paused ? "stands" : replay ? "replay" : "live";
  shown.className = `state${paused ? "" : " live"}`;
  $("pause").textContent = paused ? "Go on" : "Pause";
  const seek = $("seek");
  seek.hidden = !replay;
  if (document.activeElement !== seek) seek.value = position;
}

function connect() {
  const events = new EventSource("/events");
  let isNew = true;
  events.addEventListener("picture", ({ data }) => {
    picture = JSON.parse(data);
    if (isNew) {
      isNew = false;
      map.resume();
      processes.resume();
    }
    // A page that nobody sees is not drawn.
    if (!document.hidden) requestAnimationFrame(draw);
  });
  events.addEventListener("state", ({ data }) => state(JSON.parse(data)));
  events.addEventListener("over", () => off("the machine is off"));
  events.addEventListener("error", () => { isNew = true; off("not connected"); });
}

function off(text) {
  $("state").textContent = text;
  $("state").className = "state off";
}

const act = (path) => post(path).then(state).catch((error) => off(error.message));

readColours();
map.start();
rates.start();
processes.start();
$("pause").addEventListener("click", () => act(`/pause?on=${isPaused ? 0 : 1}`));
$("step").addEventListener("click", () => act("/step"));
$("seek").addEventListener("input", (event) => act(`/seek?to=${event.target.value}`));
addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, button, tr")) return;
  if (event.key === " ") { event.preventDefault(); $("pause").click(); }
  if (event.key === ".") $("step").click();
});
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); draw(); });
connect();
