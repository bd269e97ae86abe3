// Processes, the areas of one of them as a ruler, and walks.

import { $, PAGE, colours, count, dot, hex, make, meter, post, size, surface, table, tip, walkText } from "./common.js";

const HEIGHT = 92;
const BAND = [22, 46]; // Top and height of the ruler.
const BREAK = 14; // Where nothing is mapped between two areas.
const FLAG = { READ: 1, WRITE: 2, EXEC: 4, SHARED: 8, STACK: 16, HEAP: 32, LOCKED: 64, OBJECT: 128 };

let picture = null;
let chosen = 0;
let address = null; // The address that was walked.
let marks = []; // Areas as they were drawn: { area, left, width }

const areas = () => picture?.areas[chosen] ?? [];
const pages = (area) => (area.end - area.start) / PAGE;

function name(area) {
  if (area.name) return area.name;
  if (area.flags & FLAG.HEAP) return "[heap]";
  if (area.flags & FLAG.STACK) return "[stack]";
  if (area.flags & FLAG.SHARED) return "[shared]";
  return area.flags & FLAG.OBJECT ? "[kernel]" : "[anon]";
}

const mode = ({ flags }) => (flags & FLAG.READ ? "r" : "-") + (flags & FLAG.WRITE ? "w" : "-") + (flags & FLAG.EXEC ? "x" : "-") + (flags & FLAG.SHARED ? "s" : "p");

export function draw(next) {
  picture = next;
  const all = picture.processes;
  if (!all.some((process) => process.pid === chosen) && all.length) {
    // The largest one.
    choose(all.reduce((best, one) => (one.rss > best.rss ? one : best)).pid);
  }
  const most = Math.max(1, ...all.map((process) => process.rss));
  const rows = all.map((process) => ({
    key: process.pid,
    class: process.pid === chosen ? "pick chosen" : "pick",
    cells: [process.pid, process.name + (process.pid === picture.pid ? " (this stream)" : ""), process.state, size(process.rss), meter(process.rss, most), count(process.faults)],
  }));
  table($("processes"), [["pid", true], ["name"], [""], ["resident", true], [""], ["faults", true]], rows);
  space();
}

function choose(pid) {
  chosen = pid;
  address = null;
  post(`/process?pid=${pid}`).catch((error) => ($("space-note").textContent = error.message));
}

/// The ruler: an area's width grows with its size, by the logarithm, since areas of one process differ by factors of millions.
function space() {
  const process = picture.processes.find((process) => process.pid === chosen);
  $("space-title").textContent = process ? `${process.name} (${process.pid})` : "No process";
  const list = areas();
  const sum = (of) => list.reduce((sum, area) => sum + of(area), 0);
  $("space-note").textContent = process ? `${list.length} areas, ${size(sum(pages))} mapped, ${size(sum((area) => area.resident))} resident, ${size(sum((area) => area.swapped))} in swap, ${count(process.tables)} pages of tables` : "";
  const { context, width } = surface($("ruler"), HEIGHT);
  const all = colours();
  const weight = (area) => 3 + Math.log2(pages(area) + 1);
  const gaps = list.filter((area, at) => at && area.start !== list[at - 1].end).length;
  const unit = (width - gaps * BREAK - 2) / Math.max(1, sum(weight));
  let left = 1;
  marks = [];
  context.font = "11.5px system-ui, 'DejaVu Sans', sans-serif";
  let free = -1; // Where the next label may begin.
  let freeBelow = -1;
  list.forEach((area, at) => {
    if (at && area.start !== list[at - 1].end) {
      context.strokeStyle = all.quiet;
      context.setLineDash([2, 3]);
      context.beginPath();
      context.moveTo(left, BAND[0] + BAND[1] / 2);
      context.lineTo(left + BREAK, BAND[0] + BAND[1] / 2);
      context.stroke();
      context.setLineDash([]);
      left += BREAK;
    }
    const wide = unit * weight(area);
    part(context, area, left, wide);
    const label = name(area).split("/").at(-1);
    const needs = context.measureText(label).width + 8;
    if (left > free) {
      context.fillStyle = all.text;
      context.fillText(label, left, 14);
      free = left + needs;
    }
    const from = area.start.toString(16);
    if (left > freeBelow) {
      context.fillStyle = all.quiet;
      context.fillText(from, left, HEIGHT - 8);
      freeBelow = left + context.measureText(from).width + 8;
    }
    marks.push({ area, left, width: wide });
    left += wide;
  });
  const walked = address !== null && marks.find(({ area }) => area.start <= address && address < area.end);
  if (walked) {
    const x = walked.left + ((address - walked.area.start) / (walked.area.end - walked.area.start)) * walked.width;
    context.fillStyle = all.text;
    context.fillRect(x - 1, BAND[0] - 4, 2, BAND[1] + 8);
  }
  table($("areas"), [["from"], ["size", true], ["resident", true], ["mode"], ["what"]], list.map((area) => ({
    key: area.start,
    class: walked && walked.area === area ? "pick chosen" : "pick",
    cells: [area.start.toString(16), size(pages(area)), size(area.resident), mode(area), name(area)],
  })));
}

/// An area: what is in memory, what is in swap, and what nobody has touched, in proportion.
function part(context, area, left, wide) {
  const all = colours();
  const [top, height] = BAND;
  context.fillStyle = all.free;
  context.fillRect(left, top, wide, height);
  const object = area.resident - area.anon;
  let x = left;
  for (const [n, colour] of [[area.anon, "anon"], [object, "object"], [area.swapped, "swap"]]) {
    const w = (wide * n) / Math.max(1, pages(area));
    context.fillStyle = all[colour];
    context.fillRect(x, top, w, height);
    x += w;
  }
  context.strokeStyle = all.card;
  context.lineWidth = 1.5;
  context.strokeRect(left, top, wide, height);
}

function under(event) {
  const x = event.clientX - $("ruler").getBoundingClientRect().left;
  const mark = marks.find(({ left, width }) => left <= x && x < left + width);
  if (!mark) return null;
  const { area, left, width } = mark;
  const page = Math.min(pages(area) - 1, Math.floor(((x - left) / width) * pages(area)));
  return { area, address: area.start + page * PAGE };
}

async function walk(to) {
  address = to;
  $("address").value = to.toString(16);
  if (picture) space();
  const shown = $("walk");
  shown.classList.remove("empty");
  try {
    walkText(shown, (await post(`/walk?pid=${chosen}&address=${hex(to)}`)).text);
  } catch (error) {
    shown.textContent = error.message;
  }
}

export function start() {
  for (const [holder, act] of [["processes", (key) => { choose(key); if (picture) draw(picture); }], ["areas", walk]]) {
    const pick = (event) => { const row = event.target.closest("tr.pick"); if (row) act(Number(row.dataset.key)); };
    $(holder).addEventListener("click", pick);
    $(holder).addEventListener("keydown", (event) => { if (event.key === "Enter") pick(event); });
  }
  tip($("ruler"), (event) => {
    const found = under(event);
    if (!found) return null;
    const { area } = found;
    return [make("b", {}, name(area)), make("div", { class: "quiet" }, `${hex(area.start)} to ${hex(area.end)}, ${mode(area)}, ${size(pages(area))}`),
      make("div", {}, dot("anon"), `anonymous ${size(area.anon)}`), make("div", {}, dot("object"), `of files and shared ${size(area.resident - area.anon)}`),
      make("div", {}, dot("swap"), `in swap ${size(area.swapped)}`), make("div", { class: "quiet" }, `written ${size(area.dirty)}, held by others too ${size(area.shared)}; click walks ${hex(found.address)}`)];
  });
  $("ruler").addEventListener("click", (event) => { const found = under(event); if (found) walk(found.address); });
  $("walk-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const to = parseInt($("address").value.replace(/^0x/, ""), 16);
    if (Number.isFinite(to)) walk(to);
  });
  $("ruler-legend").append(...[["anon", "anonymous, in memory"], ["object", "of files or shared, in memory"], ["swap", "in swap"], ["free", "not there yet"]].map(([colour, text]) => {
    const mark = make("span", { class: "dot" });
    mark.style.background = `var(--${colour})`;
    return make("span", {}, mark, text);
  }), make("span", { class: "quiet" }, "widths by the logarithm of the size"));
}

/// The machine has forgotten what it was told.
export function resume() { if (chosen) post(`/process?pid=${chosen}`).catch(() => {}); }
